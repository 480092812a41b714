"""Ground truth and rankings: statistics by hand, files that go on, the two commands."""

from __future__ import annotations

import csv
import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ghnas.ranking.ensemble import out_of_fold
from ghnas.reports.plots import scatter
from ghnas.training.truth_table import read_truth, subset
from ghnas.utils import statistics as correlation
from ghnas.utils.errors import UserError
from ghnas.utils.tables import RowFile

Ghnas = Callable[..., tuple[int, str, str]]
LOW = -math.inf


# ---------------------------------------------------------------- statistics


def test_correlations_by_hand() -> None:
    truth = np.array([0.1, 0.2, 0.3, 0.4])
    assert correlation.spearman(np.array([1.0, 2.0, 4.0, 3.0]), truth) == pytest.approx(0.8)
    assert correlation.kendall(np.array([1.0, 2.0, 4.0, 3.0]), truth) == pytest.approx(4 / 6)
    assert correlation.spearman(np.array([LOW, 1e-9, 1.0, 1e9]), truth) == pytest.approx(1)
    assert math.isnan(correlation.spearman(np.full(4, LOW), truth))
    assert math.isnan(correlation.kendall(np.ones(4), truth))


def test_the_best_tenth_is_that_of_the_truth() -> None:
    truth = np.arange(40.0)
    scores = truth.copy()
    scores[-4:] = scores[-4:][::-1]
    assert correlation.STATISTICS["spearman"](scores, truth) > 0.99
    assert correlation.STATISTICS["spearman_best_tenth"](scores, truth) == pytest.approx(-1)
    assert correlation.STATISTICS["kendall_best_tenth"](scores, truth) == pytest.approx(-1)


def test_regret_by_hand() -> None:
    truth = np.array([0.9, 0.5, 0.8, 0.7, 0.6, 0.4, 0.3])
    scores = np.array([0, 7, 2, 3, 6, 5, 4.0])
    assert correlation.regret(1)(scores, truth) == pytest.approx(0.9 - 0.5)
    assert correlation.regret(5)(scores, truth) == pytest.approx(0.9 - 0.7)
    assert correlation.regret(5)(-scores, truth) == 0


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng, held = np.random.default_rng(0), 0
    for trial in range(30):  # normal pairs of correlation 1/2: Spearman 6/pi asin(1/4) = 0.483
        x = rng.normal(size=60)
        y = 0.5 * x + math.sqrt(0.75) * rng.normal(size=60)
        estimate = correlation.evaluate(x, y, seed=trial, resamples=60)["spearman"]
        assert estimate.low <= estimate.value <= estimate.high
        held += estimate.low <= 0.483 <= estimate.high
    assert 23 <= held <= 30


def test_the_ceiling_of_seeds() -> None:
    same = correlation.ceiling(np.array([[0.1, 0.2, 0.3, 0.5], [0.2, 0.3, 0.4, 0.6]]))
    assert same.value == pytest.approx(1)
    assert correlation.ceiling_of_mean(0.5, 1) == pytest.approx(math.sqrt(1 / 2))
    assert correlation.ceiling_of_mean(0.5, 2) == pytest.approx(math.sqrt(2 / 3))
    assert correlation.seed_noise(np.array([[1.0, 5.0], [3.0, 5.0]])) == pytest.approx(1)
    assert math.isnan(correlation.ceiling(np.ones((1, 4))).value)


def test_a_quarter_is_for_tuning() -> None:
    parts = [correlation.part_of(f"|{number}~0|") for number in range(4000)]
    assert parts.count("tune") == pytest.approx(1000, abs=120)
    # SHA-256 of "abc" begins with ba (FIPS 180-4), which is no multiple of four
    assert correlation.part_of("abc") == correlation.part_of(" abc\n") == "test"


# ---------------------------------------------------------------- ensemble


def test_the_ensemble_predicts_nothing_that_it_was_fitted_on() -> None:
    rng = np.random.default_rng(0)
    scores, truth = [rng.normal(size=60) for _ in range(3)], rng.normal(size=60)
    before = out_of_fold(scores, truth)
    for changed in (0, 31, 59):
        other = truth.copy()
        other[changed] = 100
        after = out_of_fold(scores, other)
        assert after[changed] == before[changed]
        assert (after != before).any()


def test_the_ensemble_finds_what_matters() -> None:
    rng = np.random.default_rng(1)
    first, second, noise = rng.normal(size=(3, 300))
    truth = first + second
    found = out_of_fold([first, second, noise], truth)
    assert correlation.spearman(found, truth) > 0.95
    assert correlation.spearman(out_of_fold([noise], truth), truth) < 0.3


# ---------------------------------------------------------------- files


def test_rows_go_on_after_half_a_line(tmp_path: Path) -> None:
    path, columns, settings = tmp_path / "rows.csv", ("name", "value"), {"steps": 3}
    with RowFile(path, columns, settings) as file:
        file.append([{"name": 'a,"b"', "value": 1}, {"name": "c", "value": 2}])
        with pytest.raises(UserError, match="another process"), RowFile(path, columns, settings):
            pass
    whole = path.read_bytes()
    path.write_bytes(whole + b"d,")
    with RowFile(path, columns, settings) as again:
        assert path.read_bytes() == whole
        assert again.rows == file.rows
        assert again.rows == [{"name": 'a,"b"', "value": "1"}, {"name": "c", "value": "2"}]
    with pytest.raises(UserError, match="made with steps 3, not 4"):
        RowFile(path, columns, {"steps": 4})
    (tmp_path / "other.csv").write_text("name\n")
    with pytest.raises(UserError, match=r"without its other\.csv\.json"):
        RowFile(tmp_path / "other.csv", ("name",), {})


def write_truth(path: Path, rows: list[tuple[object, ...]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_reading_a_truth(tmp_path: Path) -> None:
    rows = [("architecture", "seed", "validation_accuracy", "test_accuracy", "flops")]
    rows += [(f"a{i}", seed, 0.1 * i, 0.1 * i + 0.02 * seed, 5) for i in (1, 2) for seed in (1, 2)]
    path = write_truth(tmp_path / "truth.csv", [*rows, ("a3", 1, 0.3, 0.4, 5)])
    truth = read_truth(path)
    assert truth.column == "test_accuracy"
    assert truth.architectures == ("a1", "a2")  # the third lacks a seed
    assert truth.mean == pytest.approx([0.13, 0.23])
    assert read_truth(path, "validation_accuracy").mean == pytest.approx([0.1, 0.2])
    percent = write_truth(tmp_path / "p.csv", [("architecture", "acc_accuracy"), ("x", 93.5)])
    assert read_truth(percent).mean == pytest.approx([0.935])
    with pytest.raises(UserError, match="no column 'nothing'; its columns are architecture"):
        read_truth(percent, "nothing")
    percent.write_text("architecture,test_accuracy\na,93\nb,nan\n")
    with pytest.raises(UserError, match="no finite number"):
        read_truth(percent)


def test_subsets_do_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [(f"net-{i}", i / 400) for i in range(400)]
    head = ("architecture", "accuracy")
    forward = read_truth(write_truth(tmp_path / "a.csv", [head, *rows]))
    backward = read_truth(write_truth(tmp_path / "b.csv", [head, *reversed(rows)]))
    ten, twenty = (subset(forward, "test", count, seed=3) for count in (10, 20))
    assert ten.architectures == subset(backward, "test", 10, seed=3).architectures
    assert ten.architectures == twenty.architectures[:10]
    assert ten.mean.tolist() == [int(name[4:]) / 400 for name in ten.architectures]
    parts = [set(subset(forward, part).architectures) for part in ("tune", "test", "all")]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == parts[2]
    with pytest.raises(UserError, match="fewer than 500"):
        subset(forward, "all", 500)


def test_plots_are_drawings_with_every_point() -> None:
    x = np.array([1.0, 1e8, LOW, 30.0])
    svg = scatter(x, np.array([10.0, 20.0, 30.0, 40.0]), "a < b", "score", "accuracy")
    root = ElementTree.fromstring(svg)
    (dots,) = [e for e in root.iter() if e.get("id", "").startswith("PathCollection")]
    uses = [e for e in dots.iter() if e.tag.endswith("use")]
    assert len(uses) == 4
    places = [float(use.attrib["x"]) for use in uses]
    assert places[2] < places[0] < places[3] < places[1]
    assert "log10 of score" in svg


# ---------------------------------------------------------------- the commands


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of noisy images of two classes."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for label, colour in (("cat", (160, 90, 90)), ("dog", (90, 90, 160))):
        place = folder / label
        place.mkdir()
        for number in range(30):
            noise = rng.normal(0, 60, (8, 8, 3))
            pixels = np.clip(noise + np.array(colour), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


SMALL = ("--space", "nasbench201", "--cells", 1, "--channels", 4, "--workers", 2)


def test_truth_is_resumed_and_ranked(ghnas: Ghnas, pictures: Path, tmp_path: Path) -> None:
    common = (*SMALL, "--data", pictures, "--steps", 3, "--batch-size", 8)
    path, out_folder = tmp_path / "truth.csv", tmp_path / "rank"
    code, out, err = ghnas("truth", *common, "--count", 4, "--output", path, "--json")
    assert code == 0, err
    assert json.loads(out)["architectures"] == 4
    assert "8/8 trainings" in err
    rows = path.read_text().splitlines()
    assert len(rows) == 1 + 4 * 2

    # killed in the middle of the sixth row: what is lost is trained again, to the same result
    path.write_text("\n".join(rows[:6]) + "\n" + rows[6][:20])
    code, out, err = ghnas("truth", *common, "--count", 5, "--output", path)
    assert code == 0, err
    assert "10/10 trainings" in out
    assert "Spearman of one seed with another" in out

    def untimed(lines: list[str]) -> set[str]:
        return {line.rpartition(",")[0] for line in lines}

    again = path.read_text().splitlines()
    assert len(again) == 1 + 5 * 2
    assert untimed(rows) <= untimed(again)

    code, _, err = ghnas("truth", *common, "--count", 5, "--output", path, "--batch-size", 4)
    assert code == 2
    assert "made with recipe" in err

    methods = ("--methods", "params,synflow,vote", "--proxy-images", 8)
    ranking = ("rank", "--truth", path, "--data", pictures, *SMALL, "--output", out_folder)
    code, out, err = ghnas(*ranking, *methods)
    assert code == 0, err
    assert "Rankings against trained accuracy" in out
    assert "ceiling" in out
    assert max(len(line) for line in out.splitlines() if line[:1] in "┏┃┡│└") <= 80
    scores = (out_folder / "scores.csv").read_text()
    assert len(scores.splitlines()) == 1 + 5 * 4  # params, synflow, jacov, snip
    for name in ("params", "synflow", "vote"):
        assert (out_folder / "plots" / f"{name}.svg").exists()
    with (out_folder / "ranking.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 5
    assert {"architecture", "validation_accuracy", "params", "synflow", "vote"} == set(table[0])

    # half of the scores are lost, and a method is added: the others are not computed again
    lines = scores.splitlines()
    (out_folder / "scores.csv").write_text("\n".join(lines[:9]) + "\n" + lines[9][:30])
    more = ("--methods", "params,synflow,vote,naswot", "--proxy-images", 8, "--json")
    code, out, err = ghnas(*ranking, *more)
    assert code == 0, err
    new = (out_folder / "scores.csv").read_text().splitlines()
    assert new[:9] == lines[:9]
    assert untimed(lines) <= untimed(new)
    content = json.loads(out)
    assert {item["method"] for item in content["methods"]} == {
        "params", "synflow", "vote", "naswot"
    }  # fmt: skip
    assert content["architectures"] == 5
    assert json.loads((out_folder / "ranking.json").read_text()) == content


def test_rank_with_a_hypernetwork(ghnas: Ghnas, tiny_ghn: Path, tmp_path: Path) -> None:
    import random

    from ghnas.spaces import load_space

    space, rng = load_space("darts"), random.Random(5)
    rows: list[tuple[object, ...]] = [("architecture", "my_accuracy")]
    rows += [(str(space.sample(rng)), 0.5 + i / 100) for i in range(6)]
    path = write_truth(tmp_path / "truth.csv", rows)
    common = ("rank", "--truth", path, "--space", "darts", "--workers", 2, "--score-images", 64)
    code, out, err = ghnas(
        *common, "--ghn", tiny_ghn, "--output", tmp_path / "out", "--json",
        # as the composite score was called before
        "--methods", "ghn-accuracy,ghn-loss,flops,consensus,ghn-steps-2,tse-1,ensemble",
    )  # fmt: skip
    assert code == 0, err
    content = json.loads(out)
    assert {m["method"] for m in content["methods"]} == {
        "ghn-accuracy", "ghn-loss", "flops", "composite", "ghn-steps-2", "tse-1",
    }  # fmt: skip
    assert content["left_out"] == {"ensemble": "needs 20 trained architectures"}
    assert content["ceiling"] is None

    # the same scores as a search gives
    from ghnas.data import evaluation_batches, load_data
    from ghnas.ghn.checkpoint import load_ghn
    from ghnas.scoring.evaluation import SCORE_BATCH
    from ghnas.scoring.scorer import Scorer
    from ghnas.utils.devices import pick_device

    data, model = load_data(), load_ghn(tiny_ghn)
    info = model.info
    checks = evaluation_batches(
        data.validation.take(64), SCORE_BATCH, device="cpu", mean=info.mean, std=info.std
    )
    with (tmp_path / "out" / "ranking.csv").open() as file:
        found = {row["architecture"]: float(row["ghn-loss"]) for row in csv.DictReader(file)}
    names = list(found)
    graphs = [space.parse(n).for_images(data.image_shape, 10).graph for n in names]
    scorer = Scorer(model, checks, pick_device("cpu"), workers=1)
    for name, score in zip(names, scorer.score(graphs), strict=True):
        assert score is not None
        assert -found[name] == pytest.approx(score.loss, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--truth", "nowhere.csv"), "nowhere.csv cannot be read"),
        (("--truth", "truth.csv", "--methods", "magic"), "unknown method 'magic'"),
        (("--truth", "truth.csv", "--methods", ","), "no method is named"),
        (("--truth", "truth.csv", "--split", "half"), "unknown part 'half'"),
        (("--truth", "truth.csv", "--column", "none"), "no column 'none'"),
        (("--truth", "truth.csv", "--space", "nasbench201"), "not one of this space's"),
    ],
)
def test_mistakes_get_one_sentence(
    ghnas: Ghnas,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(f"net-{i}", i / 10) for i in range(5)]
    write_truth(tmp_path / "truth.csv", [("architecture", "accuracy"), *rows])
    code, _, err = ghnas("rank", *arguments)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    if "nasbench201" not in arguments:
        assert message in err
