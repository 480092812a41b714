"""Which hypernetworks there are, which one is taken, and what the cache keeps."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from searching import OWN_SPACE, save_untrained

from ghnas.data import ImageData, Split
from ghnas.ghn.checkpoint import load_ghn, refuse_mismatch, save_ghn, start_from
from ghnas.ghn.config import GHNConfig, GHNInfo
from ghnas.ghn.encoder import channel_table
from ghnas.ghn.library import (
    KnownGHN,
    Task,
    bases,
    cached,
    cached_for,
    exact,
    general_for,
    in_folder,
    place_for,
    prune,
    remove_ghn,
    shipped,
)
from ghnas.ghn.model import GHN
from ghnas.spaces import load_space, parse_space
from ghnas.utils.errors import UserError, UserNote


def images(name: str = "photos", classes: str = "ab", size: int = 8, seed: int = 0) -> ImageData:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (12, 3, size, size), generator=generator, dtype=torch.uint8)
    split = Split(pixels, torch.arange(12) % len(classes))
    statistics = ((0.5,) * 3, (0.2,) * 3)
    return ImageData(name, tuple(classes), split, split, lambda: split, *statistics, mirror=True)


def mine(text: str = OWN_SPACE) -> Task:
    return Task(parse_space(text, "mine.yaml"), images())


def known(name: str, space: str, data: ImageData, where: Any = "shipped") -> KnownGHN:
    info = GHNInfo(
        space=space, data=data.name, fingerprint=data.fingerprint, classes=data.classes,
        image_shape=data.image_shape,
    )  # fmt: skip
    return KnownGHN(name, Path(name), where, info)


def test_the_nearest_hypernetwork_comes_first() -> None:
    task, others = mine(), images("others", "abcdefghij", size=16)
    wanted = [
        known("same-images-general", "general", task.data),
        known("same-images-and-name", "mine", task.data),
        known("same-images", "darts", task.data),
        known("a-general", "general", replace(others, classes=("a", "b"))),
        known("general", "general", others),
        known("same-space", "mine", others),
        known("few-classes", "darts", images("other", "cd", 16)),
        known("a-cached-one", "darts", others, "cache"),
    ]
    wanted.insert(7, known("z-shipped-one", "darts", others))
    assert [item.name for item in bases(task.space.name, task.data, wanted[::-1])] == [
        item.name for item in wanted
    ]
    useless = GHNInfo(training={"adaptation": {"near_chance": True}})
    assert bases(task.space.name, task.data, [KnownGHN("useless", Path(), "cache", useless)]) == []
    assert general_for(task.data, wanted[::-1]) == wanted[0]
    assert general_for(images(size=16), wanted) is None


def test_of_general_ones_that_of_the_most_similar_images_comes_first() -> None:
    known = [item for item in shipped() if item.is_general]
    for mean, std, first in ((0.48, 0.26, "cifar10"), (0.3, 0.32, "embedded")):  # photos, digits
        data = replace(images(classes="abcdefghij"), mean=(mean,) * 3, std=(std,) * 3)
        assert bases("mine", data, known)[0].name == f"general-{first}"


def test_what_ships_is_exact_for_its_own_task() -> None:
    darts, there = load_space("darts"), shipped()
    found = exact(darts, "digitscapes", there)
    assert found is not None
    assert found.name == "darts-embedded"
    assert found.accuracy is not None
    assert 0.7 < found.accuracy < 0.9
    others = [darts.with_skeleton(channels=16), load_space("mobile")]
    others.append(parse_space(OWN_SPACE.replace("mine", "darts"), "mine.yaml"))
    assert [exact(space, "digitscapes", there) for space in others] == [None] * 3
    assert exact(darts, "photos", there) is None


def test_the_fingerprint_knows_space_skeleton_images_and_classes() -> None:
    task, darts = mine(), load_space("darts")
    same = [
        mine(),
        mine(f"{OWN_SPACE}\n# a comment\n"),
        mine(f"{OWN_SPACE}\ndescription: other words"),
    ]
    assert {item.fingerprint for item in same} == {task.fingerprint}
    changed = images()
    changed.train.images[3, 1, 4, 4] += 1
    others = [
        mine(OWN_SPACE.replace("[3, 5]", "[3]")),
        mine(OWN_SPACE.replace("width: 8", "width: 9")),
        Task(task.space, images(classes="ac")),
        Task(task.space, images(size=9)),
        Task(task.space, changed),
        Task(darts, images()),
        Task(darts.with_skeleton(cells=3), images()),
    ]
    assert len({item.fingerprint for item in [task, *others]}) == len(others) + 1


def keep(task: Task, base: KnownGHN, size: int = 0, **about: Any) -> Path:
    """Put a hypernetwork into the cache as an adaptation would; `size`: bytes to add."""
    path = place_for(task, base)
    save_untrained(path, task.space, task.data)
    ghn = load_ghn(path)
    origin = {"name": base.name, "sha256": base.sha256, "where": base.where}
    adaptation = {"task": task.fingerprint, "base": origin, "seconds": 60.0} | about
    ghn.info = replace(ghn.info, training={"adaptation": adaptation | {"held_out": 0.5}})
    save_ghn(path, ghn)
    return path


def test_an_adapted_one_is_found_again(tmp_path: Path) -> None:
    task, there = mine(), shipped()
    assert cached_for(task, there) is None
    path = keep(task, there[0])
    found = cached_for(task, there)
    assert found is not None
    assert (found.path, found.where, found.accuracy) == (path, "cache", 0.5)
    assert [item.path for item in cached()] == [path]
    assert cached_for(task, there, seconds=61.0) is None, "a longer adaptation is wanted"
    assert cached_for(mine(OWN_SPACE.replace("[3, 5]", "[3]")), there) is None
    assert cached_for(task, there[1:]) is None, "the package has another base by now"


def test_damaged_files_are_passed_over_with_a_sentence() -> None:
    task, there = mine(), shipped()
    path = keep(task, there[0])
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.warns(UserNote, match="passed over") as notes:
        assert cached_for(task, there) is None
    assert str(notes[0].message).count(str(path)) == 1
    path.write_bytes(b"nothing")
    with pytest.warns(UserNote, match="damaged"):
        assert cached() == []
    assert remove_ghn(path.stem, Path()) == path
    assert not path.exists()


def test_the_cache_is_bounded_and_keeps_what_was_used_last() -> None:
    there = shipped()
    tasks = [Task(mine().space, images(seed=seed)) for seed in range(3)]
    paths = [keep(task, there[0]) for task in tasks]
    for age, path in enumerate(paths):
        os.utime(path, (1000 + age, 1000 + age))
    assert cached_for(tasks[0], there) is not None, "which is noted"
    size = paths[0].stat().st_size
    assert prune(int(2.5 * size)) == [paths[1]]
    assert prune(size // 2, keep=paths[2]) == [paths[0]]
    assert [item.path for item in cached()] == [paths[2]]


def test_removing(tmp_path: Path) -> None:
    task = mine()
    path = keep(task, shipped()[0])
    own = save_untrained(tmp_path / "own.safetensors", task.space, task.data)
    (tmp_path / "weights.safetensors").write_bytes(b"of something else")
    assert [item.name for item in in_folder(tmp_path)] == ["own"]
    for name, problem in (("darts-embedded", "ships"), ("nothing", "no hypernetwork")):
        with pytest.raises(UserError, match=problem):
            remove_ghn(name, tmp_path)
    assert remove_ghn(path.stem, tmp_path) == path
    assert remove_ghn("own", tmp_path) == own
    assert not path.exists()
    assert not own.exists()


def test_a_general_hypernetwork_fits_every_space() -> None:
    data = images()
    info = known("any", "general", data).info
    ghn = GHN(GHNConfig(num_classes=2, hid=8), info)
    for name in ("darts", "mobile"):
        refuse_mismatch(ghn, load_space(name), data)
    with pytest.raises(UserError, match="classes"):
        refuse_mismatch(ghn, load_space("darts"), images(classes="abc"))


@pytest.mark.parametrize("classes", [2, 5, 8, 11])
def test_channel_embeddings_keep_their_counts(tmp_path: Path, classes: int) -> None:
    """The place of 16 channels in the table depends on the number of classes."""
    start = tmp_path / "ten.safetensors"
    save_ghn(start, GHN(GHNConfig(num_classes=10, hid=8)))
    ten, other = load_ghn(start), GHN(GHNConfig(num_classes=classes, hid=8))
    start_from(other, start)
    counts = [count for count in channel_table(1) if count not in (classes, 10)]
    shapes = torch.tensor([[count, 3, 1, 1] for count in counts])
    torch.testing.assert_close(other.shape_enc(shapes), ten.shape_enc(shapes))
    nothing = torch.zeros(1, 4, dtype=torch.int64)
    torch.testing.assert_close(other.shape_enc(nothing), ten.shape_enc(nothing))
