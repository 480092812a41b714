"""Writes how a shipped hypernetwork was trained, from the history in its file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import RESULTS, write_table

from ghnas.data.sources import EMBEDDED
from ghnas.ghn.checkpoint import find_ghn, load_ghn
from ghnas.ghn.config import GHNInfo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="darts")
    parser.add_argument("--data", default="digitscapes")
    parser.add_argument("--every", type=int, default=500, help="steps between rows")
    parser.add_argument("--note", default="", help="time and machine, for people")
    options = parser.parse_args()
    ghn = load_ghn(find_ghn(options.space, options.data))
    info = ghn.info
    name = f"training_{options.space}_{options.data}"
    if (options.space, options.data) == ("darts", EMBEDDED):
        name = "training"
    stages = list(_stages(info.training, info.space))
    rows, notes = [], []
    for number, (space, training, start) in enumerate(stages, start=1):
        history = training["history"]
        chosen = [i for i in history if i["step"] % options.every == 0 or i is history[-1]]
        rows += [
            (number, i["step"], f"{i['loss']:.3f}", f"{100 * i['held_out']:.1f} %") for i in chosen
        ]
        last = number == len(stages)
        begin = f"from the file with SHA-256 {start[:16]}" if start else "from random weights"
        command = (
            f"ghnas train {_what(info) if last else f'--space {space} --data embedded'} "
            f"--steps {training['steps']} --meta-batch {training['meta_batch']} "
            f"--batch-size {training['batch_size']} "
            f"--evaluate-every {training['evaluate_every']} --average {training.get('average', 1)} "
            f"--workers {training['workers']} --seed {training['seed']}"
        )
        notes.append(f"Stage {number}, {begin}: `{command}{' --from FILE' if start else ''}`.")
    count = sum(parameter.numel() for parameter in ghn.parameters())
    write_table(
        name,
        f"The hypernetwork for {options.space} on {options.data}",
        ("stage", "step", "training loss", "zero-shot accuracy, 32 held-out architectures"),
        rows,
        [
            f"{count:,} parameters, {ghn.config}.",
            *notes,
            options.note,
            f"![loss and accuracy]({name}.png)",
        ],
    )
    _plot(stages[-1][1]["history"], RESULTS / f"{name}.png")


def _what(info: GHNInfo) -> str:
    """Space, data and their sizes, as options."""
    if info.data == EMBEDDED:
        return f"--space {info.space} --data embedded"
    sizes = "".join(
        f" --{key} {info.skeleton[key]}" for key in ("cells", "channels") if key in info.skeleton
    )
    return (
        f"--space {info.space} --data FOLDER/{info.data} --image-size {info.image_shape[-1]}{sizes}"
    )


def _stages(training: dict[str, Any], space: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Space, settings and history of each training, the first one first, and what it started
    from."""
    start = training.get("start")
    if start:
        yield from _stages(start["training"], start.get("space", "darts"))
    yield space, training, start["sha256"] if start else ""


def _plot(history: list[dict[str, float]], path: Path) -> None:
    from matplotlib import pyplot

    steps = [item["step"] for item in history]
    figure, axes = pyplot.subplots(figsize=(6, 3.2))
    axes.plot(steps, [100 * item["held_out"] for item in history], label="held-out architectures")
    axes.plot(steps, [100 * item["accuracy"] for item in history], label="training batches")
    axes.set(xlabel="step", ylabel="zero-shot accuracy (%)")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
