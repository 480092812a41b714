"""The gradient of a step of a hypernetwork's training, of several processes and of one.

The processes share the architectures of a step and add up their gradients by gloo, as those of
`torchrun` and of `--workers` do.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from common import CPU, embedded, write_table

from ghnas.data import random_batches
from ghnas.executors.fused import compile_gradients
from ghnas.ghn.config import PRESETS, GHNConfig
from ghnas.ghn.model import GHN
from ghnas.spaces import load_space
from ghnas.training.hypernetwork.loop import TrainSettings, compute_gradients
from ghnas.training.hypernetwork.meta_batches import MetaBatches

SETTINGS = TrainSettings()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    compile_gradients()
    ranks, seeds = options.processes, range(options.steps)
    at_once = [_gradient(seed, 0, 1) for seed in seeds]
    in_parts = [sum(_gradient(seed, rank, ranks) for rank in range(ranks)) for seed in seeds]
    with tempfile.TemporaryDirectory() as folder:
        arguments = (folder, options.processes, options.steps)
        torch.multiprocessing.spawn(_process, arguments, nprocs=options.processes)
        together = torch.load(Path(folder) / "gradients.pt", weights_only=True)
    rows = [
        (seed, f"{float(one.norm()):.4g}", _difference(many, parts), _difference(many, one))
        for seed, one, parts, many in zip(seeds, at_once, in_parts, together, strict=True)
    ]
    write_table(
        "shared_gradients",
        f"The gradient of {ranks} processes against that of one",
        ("seed", "norm", "from one process, part by part", "from one process, all at once"),
        rows,
        [
            f"GHN-2 with random weights, {SETTINGS.meta_batch} darts architectures (8 channels, 5 "
            f"cells) and {SETTINGS.batch_size} images of digitscapes a step, gloo, float32. "
            "Difference: its norm, as a share of the gradient's. Part by part: the architectures "
            "of each process together, one process's after the other's. All at once, matrix "
            "products of the hypernetwork are of other sizes, so that predicted weights differ by "
            "rounding, which networks with random weights enlarge.",
        ],
    )


def _difference(found: torch.Tensor, expected: torch.Tensor) -> str:
    return f"{float((found - expected).norm() / expected.norm()):.1e}"


def _process(rank: int, folder: str, ranks: int, steps: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/r", rank=rank, world_size=ranks)
    found = [_gradient(seed, rank, ranks) for seed in range(steps)]
    if rank == 0:
        torch.save(found, Path(folder) / "gradients.pt")
    dist.barrier()
    dist.destroy_process_group()


def _gradient(seed: int, rank: int, ranks: int) -> torch.Tensor:
    """All parameters' gradients, flat; of all processes of the group, if there is one."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data, config = embedded(), GHNConfig(**PRESETS["ghn2"])
    ghn, members = GHN(config), range(SETTINGS.meta_batch)[rank::ranks]
    draw = load_space("darts").sample
    meta = MetaBatches(data.image_shape, config, seed, members, False, draw)[0]
    batches = random_batches(
        data.train, SETTINGS.batch_size, seed=seed, device=CPU, mean=data.mean, std=data.std
    )
    images, labels = next(iter(batches))
    compute_gradients(ghn, meta, images, labels, SETTINGS)
    gradients = (torch.zeros_like(p) if p.grad is None else p.grad for p in ghn.parameters())
    return torch.cat([gradient.flatten() for gradient in gradients])


if __name__ == "__main__":
    main()
