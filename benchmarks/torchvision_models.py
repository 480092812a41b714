"""How long do the weights of torchvision's models take, and are all of them predicted?

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
from ghnas.ghn.named import named_network
from ghnas.utils.errors import UserError

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
    names = torchvision.models.list_models()
    for name in names:
        network = build(name)
        wanted = dict(network.named_parameters())
        count = sum(value.numel() for value in wanted.values())
        try:
            predicted, nodes, traced, seconds = predict(ghn, network, options.repeats)
        except UserError:
            predicted, nodes, traced, seconds = {}, 0, 0.0, 0.0
        right = {
            key: value.numel()
            for key, value in wanted.items()
            if key in predicted and predicted[key].shape == value.shape
        }
        share = sum(right.values()) / count
        complete += share == 1
        left = dict.fromkeys(key.partition(".")[0] for key in wanted if key not in right)
        rows.append(
            (
                name,
                f"{count:,}",
                nodes,
                f"{share:.1%}",
                ", ".join(left) if right else "everything",
                f"{traced:.2f}",
                f"{seconds:.2f}",
            )
        )
        print(*rows[-1], flush=True)
    write_table(
        "torchvision_models",
        "Predicting the weights of torchvision's models",
        ("network", "parameters", "nodes", "predicted", "left out", "of it tracing (s)", "all (s)"),
        rows,
        [
            f"All parameters of {complete} of {len(names)} networks. Best of {options.repeats}, "
            f"{options.threads} threads; a hypernetwork with hid 32, decoding to 64x64x16x16. Of a "
            "detector the backbone is read; optical flow wants two images, and is not read at all.",
        ],
    )


def predict(
    ghn: GHN, network: nn.Module, repeats: int
) -> tuple[dict[str, torch.Tensor], int, float, float]:
    """Parameters, nodes, and the best of several times: of tracing, and of all, in seconds."""
    seconds, traced = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        graph = trace(network)
        traced.append(time.perf_counter() - began)
        predicted = ghn.predict_graphs([graph])[0]
        seconds.append(time.perf_counter() - began)
    return predicted, len(graph.primitives.nodes), min(traced), min(seconds)


def build(name: str) -> nn.Module:
    """A network whose weights have no values, where its code allows that."""
    try:
        with torch.device("meta"):
            return named_network(name, None, (3, 224, 224))
    except (NotImplementedError, RuntimeError):
        return named_network(name, None, (3, 224, 224))


if __name__ == "__main__":
    main()
