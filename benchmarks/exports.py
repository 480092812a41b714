"""Exported networks load and agree where there is no ghnas: of every space, random and trained.

    python3 -m venv plain && plain/bin/pip install torch onnxruntime numpy safetensors
    python benchmarks/exports.py plain/bin/python --folder exported

What is exported already is not exported again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from common import write_table

import ghnas
from ghnas.architectures.network import Network
from ghnas.data import ImageData
from ghnas.exports.formats import logits
from ghnas.training.saved import describe, read, save

FORMATS = {"py": "Python", "pt2": "torch.export", "onnx": "ONNX"}
TRAINED = "darts, fine-tuned"
AGREES = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", help="of an environment without ghnas")
    parser.add_argument("--folder", type=Path, required=True, help="for the exports")
    parser.add_argument("--count", type=int, default=10, help="random architectures of each space")
    parser.add_argument("--trained", type=int, default=5, help="fine-tuned networks")
    options = parser.parse_args()
    data = ghnas.load_data("embedded", train_limit=512)
    for seed in range(options.count):
        for name in ghnas.list_spaces():
            export_all(options.folder / f"{name}.{seed}", lambda folder: random_one(folder, data))
    for seed in range(options.trained):
        export_all(options.folder / f"{TRAINED}.{seed}", lambda folder: trained_one(folder, data))
    here = str(Path(__file__).with_name("exports_alone.py"))
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [options.python, here, str(options.folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=clean)
    answer = json.loads(ran.stdout.splitlines()[-1])
    write_rows(answer["networks"], answer["versions"])


def export_all(folder: Path, make: object) -> None:
    """A network in all formats, images and what it says of them."""
    if (folder / "expected.npy").exists():
        return
    assert callable(make)
    make(folder)
    saved = read(folder / "saved")
    for suffix in FORMATS:
        ghnas.export(folder / "saved", folder / f"network.{suffix}")
    images = torch.rand(5, *saved.network.graph.nodes[0].shape)
    with torch.no_grad():
        expected = logits(saved, images)
    np.save(folder / "images.npy", images.numpy())
    np.save(folder / "expected.npy", expected.numpy())
    print(folder.name, file=sys.stderr, flush=True)


def random_one(folder: Path, data: ImageData) -> None:
    """Random weights and running statistics, as fine-tuning saves them."""
    name, _, seed = folder.name.rpartition(".")
    space = ghnas.load_space(name)
    found = space.sample(seed=1000 + int(seed)).for_images(data.image_shape, data.num_classes)
    network, generator = Network(found.graph), torch.Generator().manual_seed(int(seed))
    with torch.no_grad():
        for value in [*network.buffers(), *(p for p in network.parameters() if p.dim() < 2)]:
            value.uniform_(0.5, 1.5, generator=generator)
        for value in (p for p in network.parameters() if p.dim() > 1):
            value.mul_(0.5)  # or networks without norms overflow
    save(folder / "saved" / "model.safetensors", network, describe(found, data))


def trained_one(folder: Path, data: ImageData) -> None:
    """A cell of DARTS, an epoch from predicted weights."""
    architecture = ghnas.load_space("darts").sample(seed=int(folder.name.rpartition(".")[2]))
    ghn = ghnas.load_ghn("darts-embedded")
    ghnas.finetune(architecture, data, ghn=ghn, epochs=1, path=folder / "saved")


def write_rows(networks: dict[str, dict[str, float | str]], versions: dict[str, str]) -> None:
    """A row for each space."""
    rows = []
    for space in dict.fromkeys(name.rpartition(".")[0] for name in networks):
        members = [found for name, found in networks.items() if name.rpartition(".")[0] == space]
        cells = []
        for suffix in FORMATS:
            numbers = [item[suffix] for item in members]
            good = [value for value in numbers if isinstance(value, float) and value < AGREES]
            worst = max((value for value in numbers if isinstance(value, float)), default=1.0)
            cells.append(f"{len(good)} of {len(numbers)}, {worst:.0e}")
            for value in numbers:
                if isinstance(value, str):
                    print(space, suffix, value, file=sys.stderr)
        rows.append([space, str(len(members)), *cells])
    write_table(
        "exports",
        "Exports that load and agree without ghnas",
        ("space", "networks", *FORMATS.values()),
        rows,
        [
            f"How many load in another environment (torch {versions['torch']}, onnxruntime "
            f"{versions['onnxruntime']}, numpy, safetensors; no ghnas) and agree with the network "
            f"on five images to {AGREES:.0e} of the largest logit, and the largest such "
            "difference. Random architectures with random weights and running statistics; "
            "fine-tuned ones had an epoch of 512 images from predicted weights.",
        ],
    )


if __name__ == "__main__":
    main()
