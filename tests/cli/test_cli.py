"""The commands, in this process, with a hypernetwork that was never trained."""

from __future__ import annotations

import http.client
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from PIL import Image

from ghnas.cli import main, options
from ghnas.cli.app import exit_code
from ghnas.cli.runs import make_dashboard
from ghnas.engine.runs import find_run
from ghnas.reports.numbers import format_count
from ghnas.reports.run_report import report
from ghnas.spaces import load_space
from ghnas.utils.errors import UserError
from ghnas.utils.files import replace_atomically

Ghnas = Callable[..., tuple[int, str, str]]
COMMANDS = (
    "search", "finetune", "dashboard", "train", "predict", "convert", "generate", "spaces", "show",
    "runs", "truth", "rank", "bench", "export",
    "ghns",
    "report",
)  # fmt: skip


# ---------------------------------------------------------------- help


def test_help_lists_every_command(ghnas: Ghnas) -> None:
    for arguments in ([], ["--help"]):
        code, out, err = ghnas(*arguments)
        assert code == 0
        assert not err
        assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(ghnas: Ghnas, command: str) -> None:
    code, out, _ = ghnas(command, "--help")
    assert code == 0
    assert f"Example: ghnas {command}" in out


def test_version(ghnas: Ghnas) -> None:
    code, out, _ = ghnas("--version")
    assert code == 0
    assert out.startswith("ghnas")


def test_help_imports_nothing_slow() -> None:
    program = (
        "import sys; from ghnas.cli import main; code = main(['--help'])\n"
        "slow = {'torch', 'optuna', 'sklearn', 'scipy', 'numba'} & set(sys.modules)\n"
        "sys.exit(code or (1 if slow else 0))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("10_000", 10_000),
        ("40k", 40_000),
        ("1.5M", 1_500_000),
        ("2G", 2 * 10**9),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_whole_numbers(text: str, value: int) -> None:
    assert options.whole_number("--x")(text) == value


@pytest.mark.parametrize("text", ["", "k", "1.5", "1.0001k", "-3", "+3", "1e3", "0x10", "\uff11"])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(UserError, match="--x must be a whole number of 1 or more"):
        options.whole_number("--x")(text)


# ---------------------------------------------------------------- spaces


def test_spaces_are_listed(ghnas: Ghnas) -> None:
    code, out, _ = ghnas("spaces")
    assert code == 0
    assert "darts" in out
    assert "mobile" in out
    assert max(map(len, out.splitlines())) <= 80
    names = [item["name"] for item in json.loads(ghnas("spaces", "--json")[1])]
    assert {"darts", "mobile"} <= set(names)


def test_a_space_is_shown_with_an_example(ghnas: Ghnas) -> None:
    code, out, _ = ghnas("spaces", "darts")
    assert code == 0
    assert "Genotype(normal=[" in out
    assert "parameters" in out
    assert "normal cell" in out
    large = json.loads(ghnas("spaces", "darts", "--cells", 20, "--channels", 36, "--json")[1])
    small = json.loads(ghnas("spaces", "darts", "--json")[1])
    assert large["skeleton"]["cells"] == 20
    assert large["example"]["genotype"] == small["example"]["genotype"]
    assert large["example"]["parameters"] > 20 * small["example"]["parameters"]


def test_a_space_of_ones_own(ghnas: Ghnas, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nfamily: stages\n"
        "skeleton: {stem: {block: conv_bn_act, width: 8}}\n"
        "stages:\n  - {block: residual, depth: [1, 2], width: [8, 16], stride: 2}\n"
    )
    code, out, _ = ghnas("spaces", path)
    assert code == 0
    assert "mine" in out
    assert "mine network" in out


# ---------------------------------------------------------------- search


def test_search_prints_the_best_and_what_comes_next(
    ghnas: Ghnas, tiny_ghn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = ghnas(
        "search", "--budget", 12, "--ghn", tiny_ghn, "--score-images", 32, "--device", "cpu"
    )
    assert code == 0, err
    assert "12/12 candidates" in out
    assert "trial-" in out
    (run,) = Path("results/runs").iterdir()
    assert str(run) in out
    assert f"optuna-dashboard {run / 'study.log'}" in out
    assert "ghnas finetune top-5" in out
    assert max(len(line) for line in out.splitlines() if line[:1] in "┏┃┡│└") <= 80


def test_json_goes_to_stdout_alone(ghnas: Ghnas, tiny_ghn: Path, tmp_path: Path) -> None:
    code, out, err = ghnas(
        *("search", "--budget", 12, "--ghn", tiny_ghn, "--score-images", 32, "--json"),
        *("--max-params", "60k", "--objective", "accuracy,params", "--strategy", "nsga2"),
        *("--results", tmp_path),
    )
    assert code == 0, err
    content = json.loads(out)
    assert content["manifest"]["objectives"] == ["accuracy", "params"]
    assert content["best"]
    assert all(item["parameters"] <= 60_000 for item in content["best"])
    assert "12/12 candidates" in err


def test_an_interrupted_search_is_resumed(
    ghnas: Ghnas, tiny_ghn: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of a batch; afterwards the run equals an uninterrupted one."""
    from ghnas.scoring.scorer import Scorer

    score, calls = Scorer.score, []

    def interrupted(self: Scorer, *arguments: object, **keywords: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(self, *arguments, **keywords)  # type: ignore[arg-type]

    common = ("--ghn", tiny_ghn, "--score-images", 64, "--results", tmp_path, "--device", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score", interrupted)
        code, out, err = ghnas("search", "--budget", 140, *common)
    assert code == 130, (out, err)
    (run,) = (tmp_path / "runs").iterdir()
    assert f"ghnas search --resume {run.name} --results {tmp_path}" in out
    assert "of 140 candidates are kept" in out

    code, resumed, err = ghnas("search", "--resume", run.name, *common, "--json")
    assert code == 0, err
    code, whole, _ = ghnas("search", "--budget", 140, *common, "--json")
    assert code == 0
    assert json.loads(resumed)["best"] == json.loads(whole)["best"]


def test_resuming_a_finished_search_changes_nothing(
    ghnas: Ghnas, finished: Path, tiny_ghn: Path
) -> None:
    before = ghnas("show", "top-3", "--results", finished, "--json")[1]
    code, out, _ = ghnas("search", "--resume", "--results", finished, "--json")
    assert code == 0
    assert ghnas("show", "top-3", "--results", finished, "--json")[1] == before
    assert [item["trial"] for item in json.loads(out)["best"]][:3] == [
        item["trial"] for item in json.loads(before)
    ]


def test_a_run_is_found_again_from_elsewhere(
    ghnas: Ghnas, tiny_ghn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run remembers a relative `--ghn` by its full path."""
    monkeypatch.chdir(tiny_ghn.parent)
    common = ("--score-images", 32, "--results", tmp_path / "results")
    assert ghnas("search", "--budget", 4, "--ghn", tiny_ghn.name, *common)[0] == 0
    monkeypatch.chdir(tmp_path)
    assert ghnas("search", "--resume", "--results", tmp_path / "results")[0] == 0


# ---------------------------------------------------------------- show, runs, dashboard


def test_show_draws_and_writes_the_best(ghnas: Ghnas, finished: Path, tmp_path: Path) -> None:
    code, out, _ = ghnas("show", "top-2", "--results", finished, "--output", tmp_path)
    assert code == 0
    assert out.count("Genotype(normal=[") == 2
    assert out.count("reduce cell") == 2
    assert "Shapes" in out
    drawings = list(tmp_path.glob("trial-*.svg"))
    assert len(drawings) == 2
    for path in drawings:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    code, out, _ = ghnas("show", "--nodes", "--results", finished, "--output", tmp_path)
    assert "classifier.0" in out


def test_show_says_how_far_from_the_training_a_candidate_is(
    ghnas: Ghnas, finished: Path, tmp_path: Path
) -> None:
    common = ("--results", finished, "--output", tmp_path)
    assert "of its training architectures" in ghnas("show", "top-1", *common)[1].replace("\n", " ")
    (best,) = json.loads(ghnas("show", "top-1", *common, "--json")[1])
    assert 0 <= best["distance"]["farther_than"] <= 1


def test_a_search_says_how_many_of_the_best_are_far_from_the_training(
    ghnas: Ghnas, tmp_path: Path
) -> None:
    common = ("--ghn", "darts-embedded", "--budget", 4, "--score-images", 16, "--results", tmp_path)
    code, out, _ = ghnas("search", "--channels", 12, *common)
    assert code == 0
    assert "4 of these 4 are far from what the hypernetwork was" in out.replace("\n", " ")
    assert json.loads(ghnas("search", *common, "--json")[1])["far_from_training"] <= 2


def test_show_finds_the_trial_of_a_genotype(ghnas: Ghnas, finished: Path, tmp_path: Path) -> None:
    common = ("--results", finished, "--output", tmp_path, "--json")
    (best,) = json.loads(ghnas("show", "top-1", *common)[1])
    for which in (best["genotype"], f"trial-{best['trial']}"):
        assert json.loads(ghnas("show", which, *common)[1])[0]["trial"] == best["trial"]
    edges = "[('skip_connect', 0), ('skip_connect', 1)" + ", ('max_pool_3x3', 0), ('none', 1)" * 3
    (other,) = json.loads(ghnas("show", f"Genotype(normal={edges}], reduce={edges}])", *common)[1])
    assert other["trial"] is None
    assert other["accuracy"] is None
    assert other["parameters"] > 0


def test_a_report_is_written(ghnas: Ghnas, finished: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    code, out, err = ghnas("report", "-o", page, "--results", finished)
    assert code == 0, err
    assert str(page) in out.replace("\n", "")
    assert page.read_text().startswith("<!doctype html>")
    code, _, err = ghnas("report", "-o", tmp_path / "report.pdf", "--results", finished)
    assert code == 2
    assert "must end in .html" in err


def test_runs_are_listed(ghnas: Ghnas, finished: Path, tmp_path: Path) -> None:
    code, out, _ = ghnas("runs", "--results", finished)
    assert code == 0
    assert "24/24" in out
    (run,) = json.loads(ghnas("runs", "--results", finished, "--json")[1])
    assert run["budget"] == run["done"] == 24
    code, out, _ = ghnas("runs", "--results", tmp_path)
    assert code == 0
    assert "no runs" in out


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({"Host": "127.0.0.1:1"}, 200), ({"Host": "localhost:1"}, 200), ({"Host": "[::1]:1"}, 200),
        ({"Host": "evil.example"}, 403), ({"Host": "127.0.0.1.evil.example:1"}, 403),
        ({"Host": ""}, 403), ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200),
        ({"Host": "localhost:1", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
        ({"Host": "localhost:1", "Origin": "null"}, 403),
    ],
)  # fmt: skip
def test_the_dashboard_answers_its_own_pages_alone(
    finished: Path, headers: dict[str, str], answer: int
) -> None:
    server = make_dashboard(find_run(finished), "127.0.0.1", 0)
    threading.Thread(target=server.handle_request, daemon=True).start()
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_port)) as connection:
        connection.putrequest("GET", "/api/studies", skip_host=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.getresponse().status == answer
    server.server_close()


def test_the_dashboard_serves_a_run(finished: Path) -> None:
    run = find_run(finished)
    server = make_dashboard(run, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/"
        with urlopen(f"{address}dashboard", timeout=20) as page:
            assert page.status == 200
        with urlopen(f"{address}api/studies", timeout=20) as answer:
            assert run.name in answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()


# ---------------------------------------------------------------- train, search, fine-tune


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small images of two classes, and a run on it in `results`."""
    folder = tmp_path_factory.mktemp("pets")
    for label, colour in (("cat", (200, 30, 30)), ("dog", (30, 30, 200))):
        place = folder / "images" / label
        place.mkdir(parents=True)
        for number in range(60):
            shade = tuple(min(255, value + number) for value in colour)
            Image.new("RGB", (16, 16), shade).save(place / f"{number}.png")
    common = ["--data", str(folder / "images"), "--cells", "2", "--channels", "4"]
    ghn = str(folder / "pets.safetensors")
    training = ["--steps", "4", "--evaluate-every", "4", "--hid", "8", "--meta-batch", "1"]
    assert main(["train", *common, *training, "--batch-size", "8", "--output", ghn]) == 0
    results = ["--results", str(folder / "results")]
    assert main(["search", *common, "--ghn", ghn, "--budget", "8", *results]) == 0
    return folder


def test_fine_tuning_of_the_best(ghnas: Ghnas, pets: Path) -> None:
    import torch

    import ghnas as package

    common = ("--results", pets / "results", "--device", "cpu", "--epochs", 2, "--baseline")
    code, out, err = ghnas("finetune", "top-2", *common)
    assert code == 0, err
    assert "epoch 2/2" in out
    assert "Fine-tuned from the GHN's weights" in out
    assert "Kaiming" in out
    assert "steps saved" in out
    assert max(len(line) for line in out.splitlines() if line[:1] in "┏┃┡│└") <= 80
    # finished networks are not trained again
    code, again, _ = ghnas("finetune", "top-2", *common, "--json")
    assert code == 0
    first, second = json.loads(again)
    assert 0 <= first["test"] <= 1
    assert first["baseline"]["validation"] >= 0
    network = package.load(first["path"])
    assert isinstance(network, torch.nn.Module)
    assert network(torch.zeros(3, 3, 16, 16)).shape == (3, 2)
    assert str(second["path"]) in out


def test_fine_tuning_of_a_genotype(ghnas: Ghnas, pets: Path) -> None:
    edges = "[('skip_connect', 0), ('skip_connect', 1)" + ", ('max_pool_3x3', 0), ('none', 1)" * 3
    text = f"Genotype(normal={edges}], reduce={edges}])"
    code, out, err = ghnas("finetune", text, "--results", pets / "results", "--epochs", 1)
    assert code == 0, err
    assert "genotype-" in out


# ---------------------------------------------------------------- bench


def test_training_in_another_size(ghnas: Ghnas, pets: Path) -> None:
    import ghnas as package

    results = ("--results", pets / "results")
    size = ("--cells", 3, "--channels", 6, "--image-size", 24, "--epochs", 1)
    recipe = ("--cutout", 4, "--path-dropout", 0.2, "--auxiliary", 0.4, "--average", 0.9)
    code, out, err = ghnas("finetune", "trial-2", *size, *recipe, *results, "--json")
    assert code == 0, err
    assert "Kaiming" in err
    (found,) = json.loads(out)
    network = package.load(found["path"])
    assert network.graph.nodes[0].shape == (3, 24, 24)
    assert max(node.cell for node in network.graph.nodes) == 2
    assert found["parameters"] == sum(value.numel() for value in network.parameters())
    name = Path(found["path"]).name
    assert f"training {name} of " in err
    assert name in report(find_run(pets / "results"))  # its curve, though from Kaiming
    code, out, _ = ghnas("finetune", "trial-2", *size, *recipe, *results)
    assert format_count(found["parameters"]) in out
    code, _, err = ghnas("finetune", "trial-2", *size, "--start", "ghn", *results)
    assert code == 0, err


def test_export_of_a_network_of_another_size(ghnas: Ghnas, pets: Path, tmp_path: Path) -> None:
    results = ("--results", pets / "results")
    size = ("--channels", 5, "--epochs", 1)
    assert ghnas("finetune", "trial-3", *size, *results)[0] == 0
    code, _, err = ghnas("export", "trial-3", *results)
    assert code == 2
    assert "trial-3-channels5" in err
    code, _, err = ghnas("export", "trial-3-channels5", "-o", tmp_path / "net.py", *results)
    assert code == 0, err


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--start", "zero", "ghn, kaiming or trained"),
        ("--precision", "fp8", "fp32 or bf16"),
        ("--path-dropout", "1", "below 1"),
        ("--cutout", "-1", "0 or more"),
    ],
)
def test_training_refuses(ghnas: Ghnas, pets: Path, option: str, value: str, sentence: str) -> None:
    code, _, err = ghnas("finetune", option, value, "--results", pets / "results")
    assert code == 2
    assert sentence in err


def test_export_of_a_fine_tuned_network(ghnas: Ghnas, pets: Path, tmp_path: Path) -> None:
    results = ("--results", pets / "results")
    assert ghnas("finetune", "trial-1", "--epochs", 1, *results)[0] == 0
    code, out, _ = ghnas("export", "trial-1", "-o", str(tmp_path / "net.py"), *results)
    assert code == 0
    assert "net.py" in out
    assert "net.safetensors" in out
    output = tmp_path / "net.pt2"
    code, out, _ = ghnas("export", "trial-1", "-o", str(output), "--json", *results)
    assert code == 0
    assert json.loads(out)["output"] == str(output)
    assert output.stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["top-2"], "one at a time"),
        (["trial-0"], "ghnas finetune trial-0"),
        (["trial-1", "--format", "caffe"], "use torch, onnx, python"),
    ],
)
def test_export_refuses(ghnas: Ghnas, pets: Path, arguments: list[str], sentence: str) -> None:
    code, _, err = ghnas("export", *arguments, "--results", pets / "results")
    assert code == 2
    assert sentence in err


@pytest.fixture
def accuracies(tmp_path: Path) -> Path:
    """A table of 30 architectures; a score that orders them as their accuracy does."""
    space = load_space("nasbench201")
    some = dict.fromkeys(str(space.sample(seed)) for seed in range(40))
    rows = [f"{text},{0.5 + i / 100},{i}" for i, text in enumerate(list(some)[:30])]
    path = tmp_path / "accuracies.csv"
    path.write_text("\n".join(["architecture,test_accuracy,score", *rows]) + "\n")
    return path


def test_bench(ghnas: Ghnas, tmp_path: Path, accuracies: Path) -> None:
    folder = tmp_path / "bench"
    code, out, err = ghnas(
        "bench", accuracies, "--space", "nasbench201", "--samplers", "random,predictor",
        "--trainings", "4,16", "--seeds", 2, "--scores", "score", "--workers", 1,
        "--output", folder, "--json",
    )  # fmt: skip
    assert code == 0, err
    result = json.loads(out)
    methods = {item["method"]: item for item in result["methods"]}
    assert list(methods) == ["zero-shot score", "random", "predictor", "predictor + scores"]
    assert methods["zero-shot score"]["regret"][0]["value"] == 0
    assert methods["random"]["trainings"] == [4, 16]
    assert result["architectures"] == 30
    assert json.loads((folder / "bench.json").read_text()) == result
    assert "| random |" in (folder / "bench.md").read_text()
    ElementTree.fromstring((folder / "regret.svg").read_text())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--samplers", "best"), "unknown sampler 'best'"),
        (("--trainings", "64"), "64 trainings are not possible"),
        (("--trainings", "few"), "--trainings must be a whole number"),
        (("--scores", "beauty"), "has no column 'beauty'"),
        (("--space", "darts"), "not a genotype in the DARTS notation"),
    ],
)
def test_bench_refuses(
    ghnas: Ghnas, tmp_path: Path, accuracies: Path, options: tuple[str, ...], sentence: str
) -> None:
    given = ("--space", "nasbench201", "--trainings", "8", "--output", tmp_path / "bench")
    code, _, err = ghnas("bench", accuracies, *given, *options)
    assert code == 2
    assert sentence in err
    assert not (tmp_path / "bench").exists()


@contextmanager
def ctrl_c_is_answered_by(handler: Any) -> Iterator[None]:
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_in_a_destructor_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    went_on = []

    def run() -> None:
        thing = Interrupted()
        del thing
        went_on.extend(range(100_000))
        time.sleep(5)
        went_on.append("to the end")

    # a program in the background of a shell ignores what Ctrl-C sends
    with ctrl_c_is_answered_by(signal.default_int_handler):
        assert exit_code(run) == 130
    assert "to the end" not in went_on
    assert capsys.readouterr().err == "ghnas: interrupted\n"


CARELESS = """
import signal, time

try:
    signal.raise_signal(signal.SIGINT)
except BaseException:
    pass
time.sleep(5)
"""


def test_an_interrupt_that_an_import_swallows_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "careless.py").write_text(CARELESS)
    monkeypatch.syspath_prepend(tmp_path)
    began = time.monotonic()
    with ctrl_c_is_answered_by(signal.default_int_handler):
        assert exit_code(lambda: importlib.import_module("careless")) == 130
    assert time.monotonic() - began < 5
    assert capsys.readouterr().err == "ghnas: interrupted\n"


@pytest.mark.parametrize(
    "error", [AttributeError("half of a library"), UserError("half of ours"), OSError("a file's")]
)
def test_what_fails_after_an_interrupt_is_an_interrupt(
    capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def run() -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise error

    with ctrl_c_is_answered_by(signal.default_int_handler):
        assert exit_code(run) == 130
    assert capsys.readouterr().err == "ghnas: interrupted\n"
    with pytest.raises(AttributeError, match="our own"):
        exit_code(lambda: setattr(object(), "our own", 1))


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize("interrupt", [signal.default_int_handler, signal.SIG_IGN])
def test_a_wish_to_end_is_an_interrupt(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, interrupt: Any
) -> None:
    """What is half-written is removed, also in the background of a shell, which ignores Ctrl-C."""

    def write(path: Path) -> None:
        path.write_text("half")
        signal.raise_signal(signal.SIGTERM)
        time.sleep(5)

    with ctrl_c_is_answered_by(interrupt):
        assert exit_code(lambda: replace_atomically(tmp_path / "file", write)) == 130
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert capsys.readouterr().err == "ghnas: interrupted\n"
    assert list(tmp_path.iterdir()) == []
