"""The objective that `ghnas search` is asked for: with a hypernetwork or without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from ghnas.cli import options
from ghnas.cli.ghns import SIZES, Choice, Given
from ghnas.cli.terminal import meter, say
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    import torch

    from ghnas.data import ImageData
    from ghnas.engine.objectives import ProxyScore, ZeroShot
    from ghnas.scoring.latency import LatencyTable
    from ghnas.spaces import Space
    from ghnas.utils.processes import Pool

SCORE_IMAGES, KEEP, SHORT_LIST = 512, 100, 32
SHORT_TRAININGS = 0
"""Candidates that have a short training unless --train says how many."""


def default_objective(space: Space, source: str) -> str:
    """What a search with a hypernetwork ranks by, unless it is told otherwise."""
    from ghnas.data import data_name
    from ghnas.scoring.predictor import predictor_file

    return "predicted" if predictor_file(space.name, data_name(source)) else space.objective


def latency_table(
    out: Console, asked: Given, space: Space, data: ImageData, device: torch.device
) -> LatencyTable | None:
    """What predicts latencies, from networks that are measured now; None where nobody asks."""
    from ghnas.scoring.latency import latency_table

    settings = {
        key: asked[f"latency_{key}"] for key in ("batch", "threads") if f"latency_{key}" in asked
    }
    if "latency" not in asked["objective"] and "max_latency" not in asked:
        if settings:
            raise UserError(
                f"--latency-{next(iter(settings))} needs --max-latency or the objective latency"
            )
        return None
    sized = space.for_images(data.image_shape, data.num_classes)
    with meter(out, "latencies") as shown:
        found = latency_table(sized, **settings, device=str(device), report=shown.update)
    say(out, found.describe())
    return found


def zero_shot(
    out: Console, asked: Given, choice: Choice, source: str, device: torch.device, pool: Pool
) -> tuple[Space, ZeroShot]:
    """Scores with predicted weights, and the space with the skeleton that they are for."""
    from ghnas.engine.objectives import ZeroShot
    from ghnas.ghn.checkpoint import load_ghn, refuse_mismatch, train_command, trained_skeleton
    from ghnas.reports.tables import describe_skeleton
    from ghnas.spaces import list_spaces

    assert choice.ghn is not None
    name, space, ghn = asked.get("space", "darts"), choice.space, load_ghn(choice.ghn)
    size = asked.get("image_size") or (ghn.info.image_shape or [None])[-1]
    data = choice.data or options.load_images(out, source, size)
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
        latency=latency_table(out, asked, space, data, device),
        pool=pool,
    )
    if "predicted" in objective.names:
        say(
            out,
            "ranked by what a predictor, fitted on published trainings, expects of a long one; "
            "--objective accuracy ranks by zero-shot accuracy",
        )
    return space, objective


def proxy_score(
    out: Console, asked: Given, choice: Choice, source: str, device: torch.device, pool: Pool
) -> ProxyScore:
    """Scores that need no hypernetwork; says what is missed, and how to get it."""
    from ghnas.engine.objectives import ProxyScore
    from ghnas.ghn.checkpoint import train_command

    data = choice.data or options.load_images(out, source, asked.get("image_size"))
    images = options.given(images=asked.get("score_images"))
    objective = ProxyScore(
        data,
        objectives=asked["objective"],
        device=device,
        latency=latency_table(out, asked, choice.space, data, device),
        pool=pool,
        **images,
    )
    better, (height, width) = "", data.image_shape[1:]
    if len(objective.names) == 1 and "train" not in asked:
        better = (
            f"; --train {SHORT_LIST} gives some a short training, chosen by a predictor, for a "
            "better order"
        )
    say(
        out,
        f"{choice.why}: candidates are ordered by {' and '.join(objective.proxies)}, a "
        f"training-free proxy, at {height}x{width} pixels{better}; "
        f"`{train_command(asked.get('space', 'darts'), source)}` trains a hypernetwork for --ghn",
    )
    return objective
