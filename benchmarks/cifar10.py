"""The whole path on CIFAR-10: train a small hypernetwork, search, fine-tune."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import percent, write_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="a folder of parquet files or images, or cifar10")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--budget", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ghn, results = str(folder / "cifar10.safetensors"), str(folder / "results")
        of_data = ("--data", options.data)
        train, train_seconds = _ghnas(
            "train", "--from", "shipped", *of_data, "--image-size", 16, "--steps", options.steps,
            "--evaluate-every", max(options.steps // 4, 1), "--output", ghn,
        )  # fmt: skip
        search, search_seconds = _ghnas(
            "search", *of_data, "--ghn", ghn, "--budget", options.budget, "--results", results
        )
        tuned, tune_seconds = _ghnas(
            "finetune", "top-2", "--epochs", options.epochs, "--results", results, "--baseline"
        )
    history = train["training"]["history"]
    best = max(item["accuracy"] for item in search["best"])
    rows: list[tuple[object, ...]] = [
        (
            f"`ghnas train --from shipped --steps {options.steps}`",
            f"{train_seconds:.0f} s",
            f"held-out architectures {percent(history[-1]['held_out'])}",
        ),
        (
            f"`ghnas search --budget {options.budget}`",
            f"{search_seconds:.0f} s",
            f"best zero-shot {percent(best)}",
        ),
    ]
    for item in tuned:
        rows.append(
            (
                f"`ghnas finetune`, {options.epochs} epoch",
                f"{item['seconds']:.0f} s",
                f"zero-shot {percent(item['zero_shot'])}, test {percent(item['test'])}; from "
                f"Kaiming initialisation {percent(item['baseline']['test'])}",
            )
        )
    write_table(
        "cifar10",
        "The whole path on CIFAR-10 at 16x16, in miniature",
        ("command", "time", "accuracy"),
        rows,
        [f"Fine-tuning of all four networks took {tune_seconds:.0f} s; seed 0 throughout."],
    )


def _ghnas(*arguments: object) -> tuple[Any, float]:
    """What a command prints as JSON, and its seconds."""
    began = time.monotonic()
    command = [sys.executable, "-m", "ghnas", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout), time.monotonic() - began


if __name__ == "__main__":
    main()
