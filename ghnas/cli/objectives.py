"""The objective that `ghnas search` is asked for: with a hypernetwork or without one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ghnas.cli import options
from ghnas.cli.terminal import say

if TYPE_CHECKING:
    import torch

    from ghnas.engine.objectives import ProxyScore, ZeroShot
    from ghnas.spaces import Space

SCORE_IMAGES, KEEP, SHORT_LIST = 512, 100, 32
SHORT_TRAININGS = 0
"""Candidates that have a short training unless --train says how many."""
SIZES = ("cells", "channels")
"""Settings of a skeleton that say how large a network is."""
NO_GHN = Path("none")
"""What `--ghn` says for a search without a hypernetwork."""

Given = dict[str, Any]
"""The options that the command line gives, by the names of the command's parameters."""


def ghn_path(asked: Given, space: Space, source: str) -> Path | None:
    """The hypernetwork's file; None for a search without one."""
    from ghnas.data import data_name
    from ghnas.ghn.checkpoint import list_ghns, shipped_ghn

    if "ghn" not in asked:
        return shipped_ghn(space.name, data_name(source))
    given: Path = asked["ghn"]
    return None if given == NO_GHN else list_ghns().get(str(given), given)


def zero_shot(
    out: Console, asked: Given, space: Space, source: str, path: Path, device: torch.device
) -> tuple[Space, ZeroShot]:
    """Scores with predicted weights, and the space with the skeleton that they are for."""
    from ghnas.engine.objectives import ZeroShot
    from ghnas.ghn.checkpoint import load_ghn, refuse_mismatch, train_command, trained_skeleton
    from ghnas.reports.tables import describe_skeleton
    from ghnas.spaces import list_spaces

    name, ghn = asked.get("space", "darts"), load_ghn(path)
    shape = ghn.info.image_shape
    data = options.load_images(out, source, shape[-1] if shape else None)
    refuse_mismatch(ghn, space, data, train_command(name, source))
    if name in list_spaces():  # a file of the user's own says itself what it is
        size = {key: asked[key] for key in SIZES if key in asked}
        trained = trained_skeleton(ghn.info, space).with_skeleton(**size)
        if trained.skeleton != space.skeleton:
            known = describe_skeleton(trained.skeleton)
            say(out, f"networks as the hypernetwork was trained for: {known}")
        space = trained
    objective = ZeroShot(
        ghn,
        data,
        objectives=asked["objective"],
        images=asked.get("score_images", SCORE_IMAGES),
        keep=None if "exact" in asked else KEEP,
        device=device,
    )
    return space, objective


def proxy_score(
    out: Console, asked: Given, space: Space, source: str, device: torch.device
) -> ProxyScore:
    """Scores that need no hypernetwork; says what is missed, and how to get it."""
    from ghnas.engine.objectives import ProxyScore
    from ghnas.ghn.checkpoint import train_command

    data = options.load_images(out, source, None)
    images = options.given(images=asked.get("score_images"))
    objective = ProxyScore(data, objectives=asked["objective"], device=device, **images)
    why = "no hypernetwork"
    if "ghn" not in asked:
        why += f" ships for space {space.name} and data {asked.get('data', 'embedded')}"
    better, (height, width) = "", data.image_shape[1:]
    if len(objective.names) == 1 and "train" not in asked:
        better = (
            f"; --train {SHORT_LIST} gives some a short training, chosen by a predictor, for a "
            "better order"
        )
    say(
        out,
        f"{why}: candidates are ordered by {' and '.join(objective.proxies)}, a training-free "
        f"proxy, at {height}x{width} pixels{better}; "
        f"`{train_command(asked.get('space', 'darts'), source)}` trains a hypernetwork for --ghn",
    )
    return objective
