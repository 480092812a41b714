"""Writes how a shipped hypernetwork was trained, from the history in its file."""

from __future__ import annotations

import argparse
from pathlib import Path

from common import RESULTS, write_table

from ghnas.ghn.checkpoint import find_ghn, load_ghn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="darts")
    parser.add_argument("--data", default="digitscapes")
    options = parser.parse_args()
    ghn, info = load_ghn(find_ghn(options.space, options.data, "ghnas train"))
    history = info.training["history"]
    chosen = [item for item in history if item["step"] % 500 == 0 or item is history[-1]]
    rows = [
        (item["step"], f"{item['loss']:.3f}", f"{100 * item['held_out']:.1f} %") for item in chosen
    ]
    settings = {key: value for key, value in info.training.items() if key != "history"}
    count = sum(parameter.numel() for parameter in ghn.parameters())
    write_table(
        "training",
        f"The hypernetwork for {options.space} on {options.data}",
        ("step", "training loss", "zero-shot accuracy, 32 held-out architectures"),
        rows,
        [
            f"{count:,} parameters, {info.config}.",
            f"Settings: {settings}.",
            f"Command: `ghnas train --space {info.space} --data embedded --steps "
            f"{settings['steps']} --meta-batch {settings['meta_batch']} --evaluate-every "
            f"{settings['evaluate_every']} --workers {settings['workers']}`, seed "
            f"{settings['seed']}. It took 73 minutes on 4 cores of an AMD EPYC that did other "
            f"work at the same time.",
            "![loss and accuracy](training.png)",
        ],
    )
    _plot(history, RESULTS / "training.png")


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
