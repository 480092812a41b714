"""Hypernetworks on the command line: which one a search takes or adapts, and `ghnas ghns`."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ghnas.cli import options
from ghnas.cli.terminal import Meter, console, meter, print_json, say, say_compiling
from ghnas.cli.train import show_training
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    import torch

    from ghnas.data import ImageData
    from ghnas.ghn.library import KnownGHN, Task
    from ghnas.spaces import Space
    from ghnas.training.hypernetwork.loop import TrainProgress

EXAMPLE = "Example: ghnas ghns, then ghnas ghns remove mine-photos-01234567"
ADAPT_SECONDS = 300.0
"""How long a hypernetwork is adapted, unless --adapt says otherwise."""
NO_GHN = Path("none")
"""What `--ghn` says for a search without a hypernetwork."""
SIZES = ("cells", "channels")
"""Settings of a skeleton that say how large a network is."""

Given = dict[str, Any]
"""The options that the command line gives, by the names of the command's parameters."""


@dataclass(frozen=True)
class Choice:
    """What candidates are scored with.

    Args:
        ghn: A hypernetwork's file; None: none.
        space: With the skeleton to search.
        data: The images, where they were loaded to choose.
        adapted: Whether the file belongs to the user's cache.
        why: Why there is no hypernetwork.
    """

    ghn: Path | None
    space: Space
    data: ImageData | None = None
    adapted: bool = False
    why: str = "no hypernetwork"


def choose_ghn(
    out: Console, asked: Given, space: Space, source: str, device: torch.device
) -> Choice:
    """The hypernetwork that was asked for, the one that ships, or one that is adapted now or was
    before; says which one it is."""
    from ghnas.data import data_name
    from ghnas.engine.objectives import check_objectives
    from ghnas.ghn.checkpoint import list_ghns, shipped_ghn
    from ghnas.ghn.library import Task, bases, cached, cached_for, exact, general_for, shipped

    given, seconds = asked.get("ghn"), asked.get("adapt", ADAPT_SECONDS)
    if given == NO_GHN:
        return Choice(None, space)
    if given is not None and not asked.get("adapt"):
        return Choice(list_ghns().get(str(given), given), space)
    known, name = shipped(), data_name(source)
    sized = _sized(asked, space, known)
    if given is None and (found := exact(sized, name, known)):
        (*_, size) = found.info.image_shape
        if asked.get("image_size", size) == size:
            return Choice(found.path, space)
    if given is None and not seconds and (path := shipped_ghn(space.name, name)):
        return Choice(path, space)  # for networks of another size
    none = f"no hypernetwork ships for space {space.name} and data {asked.get('data', 'embedded')}"
    if given is None and _asks_for_proxy(asked):
        return Choice(None, space, why=none)
    if "objective" in asked:  # before it takes minutes
        check_objectives(asked["objective"].split(","))
    data = options.load_images(out, source, asked.get("image_size") or _known_size(known, name))
    task = Task(sized, data)
    _check_limits(asked, task)
    if given is not None:
        return _adapted(out, task, _known(given, [*known, *cached()]), seconds, device)
    if found := cached_for(task, known, asked.get("adapt", 0.0)):
        say(out, f"hypernetwork {found.name}, adapted before ({_accuracy(found)})")
        return _unless_near_chance(task, found)
    if seconds:
        (base, *_) = bases(task.space.name, task.data, [*known, *cached()])
        return _adapted(out, task, base, seconds, device)
    if general := general_for(data, known):
        say(out, f"hypernetwork {general.name}, not adapted to space {space.name}")
        return Choice(general.path, task.space, data)
    return Choice(None, space, why=none)


def _check_limits(asked: Given, task: Task) -> None:
    """Refuse limits that no candidate meets, before it takes minutes."""
    from ghnas.engine.constraints import Limits, require_feasible

    limits = Limits(asked.get("max_params"), asked.get("max_flops"))
    if limits:
        space = task.space.for_images(task.data.image_shape, task.data.num_classes)
        require_feasible(space, limits, random.Random(asked.get("seed", 0)))


def _asks_for_proxy(asked: Given) -> bool:
    """Whether the objectives that were asked for need no hypernetwork."""
    from ghnas.engine.objectives.proxy_score import PROXY_SCORES
    from ghnas.engine.trials import SIZES as SIZE_NAMES

    names = asked.get("objective", "").split(",")
    return any(name in PROXY_SCORES and name not in SIZE_NAMES for name in names)


def _known_size(known: list[KnownGHN], name: str) -> int | None:
    """The image size of hypernetworks that ship for images of that name."""
    return next((item.info.image_shape[-1] for item in known if item.info.data == name), None)


def _sized(asked: Given, space: Space, known: list[KnownGHN]) -> Space:
    """A space that ships gets the skeleton that hypernetworks are trained for, if any is, but for
    what was asked for; a file of the user's own says itself what it is."""
    from ghnas.ghn.checkpoint import trained_skeleton
    from ghnas.spaces import list_spaces

    trained = [item.info for item in known if item.info.space == space.name]
    if asked.get("space", "darts") not in list_spaces() or not trained:
        return space
    size = {key: asked[key] for key in SIZES if key in asked}
    return trained_skeleton(trained[0], space).with_skeleton(**size)


def _known(given: Path, known: list[KnownGHN]) -> KnownGHN:
    """The hypernetwork that --ghn names."""
    from ghnas.ghn.checkpoint import load_ghn
    from ghnas.ghn.library import KnownGHN

    named = next((item for item in known if item.name == str(given)), None)
    return named or KnownGHN(given.stem, given, "here", load_ghn(given).info)


def _adapted(
    out: Console, task: Task, base: KnownGHN, seconds: float, device: torch.device
) -> Choice:
    """Adapt a hypernetwork, with a meter."""
    from ghnas.ghn.library import describe
    from ghnas.reports.numbers import format_seconds
    from ghnas.training.hypernetwork.cached import adapt_cached

    height, width = task.data.image_shape[1:]
    what = f"space {task.space.name} and {task.data.num_classes} classes at {height}x{width} pixels"
    say(
        out,
        f"adapting {base.name} ({describe(base.info)}) to {what}: about {format_seconds(seconds)}, "
        "once; --adapt takes another time, 0 goes without",
    )
    if device.type == "cpu":
        say_compiling(out, "execute", "differentiate")
    kept = "; the last evaluated state is kept: run the same command to go on"
    with meter(out, "steps", kept) as shown:
        found = adapt_cached(
            task,
            base,
            device,
            lambda progress: _report(shown, progress),
            lambda: say(out, "another process adapts to the same: waiting for it"),
            seconds=seconds,
        )
    say(out, f"adapted: {_accuracy(found)}; kept as {found.name}, see ghnas ghns")
    return _unless_near_chance(task, found)


def _report(shown: Meter, progress: TrainProgress) -> None:
    from ghnas.training.hypernetwork.course import TIMED, UNTIMED

    if not progress.steps:
        shown.update(progress.step, UNTIMED + TIMED, "measuring how many fit into the time")
        return
    show_training(shown, progress, f"loss {progress.loss:.3f}")


def _accuracy(found: KnownGHN) -> str:
    about, history = found.info.training["adaptation"], found.info.training["history"]
    steps = about["steps_done"]
    early = "" if steps == found.steps else f" of {found.steps:,}, no more was gained"
    return (
        f"zero-shot accuracy {100 * about['held_out']:.1f} % after {steps:,} steps{early}, "
        f"{100 * history[0]['held_out']:.1f} % before, chance {100 * about['chance']:.1f} %"
    )


def _unless_near_chance(task: Task, found: KnownGHN) -> Choice:
    if not found.near_chance:
        return Choice(found.path, task.space, task.data, adapted=True)
    about = found.info.training["adaptation"]
    why = (
        f"the hypernetwork stayed near chance (zero-shot accuracy {100 * about['held_out']:.1f} %, "
        f"chance {100 * about['chance']:.1f} %; a longer --adapt may help), so it is not used"
    )
    return Choice(None, task.space, task.data, why=why)


def ghns(
    action: Annotated[
        str | None, typer.Argument(metavar="remove", help="Remove one; default: list all.")
    ] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which one to remove.")] = None,
    json: options.Json = False,
) -> None:
    """List hypernetworks: those that ship, adapted ones in the cache, and files in this folder."""
    from ghnas.ghn.library import cached, in_folder, remove_ghn, shipped

    out = console(json)
    if action not in (None, "remove"):
        raise UserError(f"unexpected {action!r}: ghnas ghns lists, ghnas ghns remove NAME removes")
    if action == "remove":
        if name is None:
            raise UserError("name the hypernetwork to remove: ghnas ghns remove NAME")
        path = remove_ghn(name, Path())
        say(out, f"removed {path}")
        if json:
            print_json({"removed": str(path)})
        return
    found = [*shipped(), *cached(), *in_folder(Path())]
    if json:
        print_json([_as_dict(item) for item in found])
        return
    from ghnas.reports.tables import ghns_tables

    for shown in ghns_tables(found):
        out.print(shown)
    say(
        out,
        "zero-shot: accuracy on held-out architectures and validation images; steps: of the "
        "last training; 10 classes where no other number stands",
    )


def _as_dict(item: KnownGHN) -> dict[str, Any]:
    info = item.info
    return {
        "name": item.name,
        "where": item.where,
        "path": str(item.path),
        "space": info.space,
        "skeleton": info.skeleton,
        "data": info.data,
        "classes": info.classes,
        "image_shape": info.image_shape,
        "steps": item.steps,
        "zero_shot": item.accuracy,
        "bytes": item.path.stat().st_size,
        "sha256": item.sha256,
    }
