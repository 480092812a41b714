"""Memory of `ghnas train` and `ghnas search` on few and on many images of 256x256 pixels.

Writes generated JPEG files of so many classes in torchvision's ImageNet layout, runs both commands
on them in processes of their own, and watches the memory of all processes that they start: each
page is counted once (proportional set size).
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import write_table
from PIL import Image

from ghnas.data.index import place_of
from ghnas.utils.files import cache_folder

DISTINCT = 64
PIXELS = 256
ASKED = 1.5
SPACE = """
name: tiny
family: stages
skeleton:
  stem: {block: conv_bn_act, kernel: 3, width: 4, stride: 4}
stages:
  - {block: residual, depth: [1, 2], width: [4, 8], kernel: [3, 5], stride: 2}
  - {block: residual, depth: [1, 2], width: [8, 12], kernel: [3, 5], stride: 2}
"""
"""Networks that take less time than decoding the images does."""


@dataclass(frozen=True)
class Measured:
    """Of one command: its most memory in GB, and its seconds."""

    memory: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs=2, default=(1000, 50_000))
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--budget", type=int, default=16)
    parser.add_argument("--write", type=Path, help="only write the many images here, with val")
    options = parser.parse_args()
    if options.write:
        write_images(options.write / "train", options.images[1], options.classes)
        write_images(options.write / "val", 2 * options.classes, options.classes)
        return
    found: list[dict[str, Measured]] = []
    for images in options.images:
        with tempfile.TemporaryDirectory(prefix="images") as folder:
            write_images(Path(folder) / "set" / "train", images, options.classes)
            commands = commands_for(Path(folder), options)
            found.append({name: measure(command) for name, command in commands.items()})
            place_of(cache_folder(), Path(folder) / "set" / "train", "folder").unlink(
                missing_ok=True
            )
    few, many = found
    rows = [
        [f"`{name}`", *(f"{run[name].memory:.2f} GB" for run in found),
         f"{many[name].memory - few[name].memory:+.2f} GB",
         *(f"{run[name].seconds:.0f} s" for run in found)]
        for name in few
    ]  # fmt: skip
    counts = [f"{images:,} images" for images in options.images]
    needed = options.images[1] * 3 * options.image_size**2 / 1e9
    write_table(
        "large_data",
        "Memory with images that do not fit",
        ("command", *counts, f"above (asked: under {ASKED} GB)", *(f"time, {c}" for c in counts)),
        rows,
        [
            f"Most memory of all processes of a command, each page counted once. Generated JPEG "
            f"files of {PIXELS}x{PIXELS} pixels, {options.classes} classes, read at "
            f"`--image-size {options.image_size}`, at which {options.images[1]:,} would need "
            f"{needed:.1f} GB. Networks: tiny, of two stages and up to 12 channels. "
            f"`train`: {options.steps} steps of 64 images and 2 architectures, one evaluation; "
            f"`search`: {options.budget} candidates on 512 validation images (all 100 of the few). "
            "`train` lists the folder, `search` finds the list in the cache."
        ],
    )


def write_images(folder: Path, images: int, classes: int) -> None:
    """Files of a few distinct images: noise on a colour, which tells the class a little."""
    random = np.random.default_rng(0)
    distinct = []
    for number in range(DISTINCT):
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8) // 2
        coarse[..., number % 3] += 100
        stream = io.BytesIO()
        Image.fromarray(coarse).resize((PIXELS, PIXELS)).save(stream, "JPEG", quality=75)
        distinct.append(stream.getvalue())
    for number in range(images):
        place = folder / f"n{number % classes:08}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:08}.JPEG").write_bytes(distinct[number % DISTINCT])


def commands_for(folder: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    """The two commands; the second one takes the hypernetwork of the first."""
    (folder / "tiny.yaml").write_text(SPACE)
    common = f"--space {folder}/tiny.yaml --data {folder}/set --image-size {options.image_size}"
    common += " --device cpu"
    train = f"train {common} --steps {options.steps} --evaluate-every {options.steps}"
    train += f" --meta-batch 2 --hid 8 --output {folder}/own.safetensors"
    search = f"search {common} --ghn {folder}/own.safetensors --budget {options.budget}"
    search += f" --objective accuracy --results {folder}/results"
    return {"train": train.split(), "search": search.split()}


def measure(command: list[str]) -> Measured:
    """Run a command of ghnas and look at its memory four times a second."""
    began, most = time.monotonic(), 0.0
    with subprocess.Popen([sys.executable, "-m", "ghnas", *command]) as process:
        while process.poll() is None:
            most = max(most, sum(map(memory_of, descendants(process.pid))))
            time.sleep(0.25)
    if process.returncode:
        raise SystemExit(f"ghnas {' '.join(command)} failed")
    return Measured(most, time.monotonic() - began)


def descendants(root: int) -> Iterator[int]:
    """A process and all that it started, and they."""
    yield root
    try:
        for task in Path(f"/proc/{root}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from descendants(int(child))
    except OSError:  # it has just ended
        return


def memory_of(process: int) -> float:
    """Proportional set size in GB."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
