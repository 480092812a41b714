"""How long do the weights of torchvision's classifiers take, and are all of them predicted?

Takes the best of several predictions by a hypernetwork of the published size (random weights:
they change no time), graph and all, on 4 threads.
"""

from __future__ import annotations

import argparse
import time
import warnings

import torch
import torchvision
from common import write_table
from torch import nn

from ghnas.architectures.tracing.trace import trace
from ghnas.ghn.config import GHNConfig
from ghnas.ghn.model import GHN

PUBLISHED = GHNConfig(num_classes=1000, max_shape=(64, 64, 16, 16), hid=32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    ghn = GHN(PUBLISHED).eval()
    rows, complete = [], 0
    names = torchvision.models.list_models(module=torchvision.models)
    for name in names:
        network = build(name)
        seconds, traced = [], []
        for _ in range(options.repeats):
            began = time.perf_counter()
            graph = trace(network)
            traced.append(time.perf_counter() - began)
            predicted = ghn.predict_graphs([graph])[0]
            seconds.append(time.perf_counter() - began)
        wanted = dict(network.named_parameters())
        right = sum(
            value.numel()
            for key, value in wanted.items()
            if key in predicted and predicted[key].shape == value.shape
        )
        count = sum(value.numel() for value in wanted.values())
        complete += right == count
        rows.append(
            (
                name,
                f"{count:,}",
                len(graph.primitives.nodes),
                f"{right / count:.1%}",
                f"{min(traced):.2f}",
                f"{min(seconds):.2f}",
            )
        )
        print(*rows[-1], flush=True)
    write_table(
        "torchvision_models",
        "Predicting the weights of torchvision's classification models",
        ("network", "parameters", "nodes", "predicted", "of it tracing (s)", "all (s)"),
        rows,
        [
            f"All parameters of {complete} of {len(names)} networks. Best of {options.repeats}, "
            f"{options.threads} threads; a hypernetwork with hid 32, decoding to 64x64x16x16.",
        ],
    )


def build(name: str) -> nn.Module:
    """A network whose weights have no values, where its code allows that."""
    settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    try:
        with torch.device("meta"):
            return torchvision.models.get_model(name, weights=None, **settings)
    except NotImplementedError:
        return torchvision.models.get_model(name, weights=None, **settings)


if __name__ == "__main__":
    main()
