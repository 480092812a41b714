"""`ghnas predict` and `ghnas convert`: weights for any network, and hypernetwork files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ghnas.cli import options
from ghnas.cli.options import number, positive, text
from ghnas.cli.terminal import console, print_json, say
from ghnas.utils.errors import UserError

PREDICT_EXAMPLE = "Example: ghnas predict resnet50 --ghn ghn2.pt -o resnet50.safetensors"
CONVERT_EXAMPLE = "Example: ghnas convert ghn2_cifar10.pt ghn2_cifar10.safetensors"


def predict(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="A model of torchvision, or your own package.module:factory. Of a detector the "
            "backbone.",
        ),
    ],
    ghn: Annotated[
        Path,
        text(
            "--ghn",
            "NAME|FILE",
            "The hypernetwork: .safetensors or .pt, or the name of one that ships.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The .safetensors file to write.",
            show_default="NETWORK.safetensors",
        ),
    ] = None,
    classes: Annotated[
        int | None, number("--classes", "Replace the head by one of so many classes.", most=2**20)
    ] = None,
    keep_head: Annotated[
        bool, typer.Option("--keep-head", help="Leave the classifier out of what is predicted.")
    ] = False,
    noise: Annotated[
        float | None,
        positive(
            "--noise",
            "For fine-tuning: add noise of this strength (3e-5 is a good one) and make deep "
            "layers orthogonal.",
        ),
    ] = None,
    image_size: Annotated[
        int, number("--image-size", "Pixels of the images each way.", most=4096)
    ] = 224,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Predict the weights of any network and write them as a state dict."""
    import contextlib
    import warnings
    from dataclasses import asdict

    from ghnas.architectures.tracing.trace import trace
    from ghnas.ghn.checkpoint import load_ghn
    from ghnas.ghn.conditioning import condition
    from ghnas.ghn.model import with_tied
    from ghnas.ghn.named import named_network
    from ghnas.reports.tables import describe_distance
    from ghnas.training.hypernetwork.distance import training_distances
    from ghnas.utils.files import require_writable
    from ghnas.utils.tensor_files import write_tensors

    out = console(json)
    path = output or Path(f"{network.rpartition(':')[2].rpartition('.')[2]}.safetensors")
    if path.suffix != ".safetensors":
        raise UserError(f"--output must end in .safetensors, not {path.name!r}")
    require_writable(path)
    hypernetwork = load_ghn(ghn)
    shape = (3, image_size, image_size)
    module = named_network(network, classes, shape)
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        graph = trace(module, shape)
        parameters = with_tied(module, hypernetwork.predict_graphs([graph], keep_head)[0])
    seconds = time.perf_counter() - began
    for message in dict.fromkeys(str(item.message) for item in caught):
        say(out, f"warning: {message}")
    if noise is not None:
        parameters = condition(parameters, noise, seed)
    metadata = {"network": network, "ghn": hypernetwork.info.sha256}
    write_tensors(path, {key: value.clone() for key, value in parameters.items()}, metadata)
    nodes = len(graph.primitives.nodes)
    count = sum(value.numel() for value in parameters.values())
    whole = dict(module.named_parameters())
    found = sum(value.numel() for name, value in whole.items() if name in parameters)
    share = found / max(sum(value.numel() for value in whole.values()), 1)
    part = "" if share == 1 else f", {100 * share:.1f} % of all"
    say(out, f"{network}: {count:,} values in {len(parameters)} parameters{part}, predicted from")
    say(out, f"{nodes} nodes in {seconds:.2f} s, written to {path}")
    distance = None
    with contextlib.suppress(UserError):  # of a space of somebody's own
        (distance,) = training_distances(hypernetwork, [graph])
        say(out, describe_distance(distance))
    say(out, f"module.load_state_dict(safetensors.torch.load_file({str(path)!r}), strict=False)")
    if json:
        print_json(
            {
                "network": network,
                "output": str(path),
                "parameters": len(parameters),
                "values": count,
                "nodes": nodes,
                "seconds": seconds,
                "left_out": sorted(whole.keys() - parameters.keys()),
                "distance": distance and asdict(distance),
            }
        )


def convert(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="A hypernetwork's file.")],
    target: Annotated[
        Path,
        typer.Argument(metavar="TO", help="The file to write: .safetensors (ours) or .pt."),
    ],
    half: Annotated[
        bool,
        typer.Option(
            "--half", help="Store numbers of 16 bits: half the size, a little less exact."
        ),
    ] = False,
) -> None:
    """Write a hypernetwork in the other format: .pt is that of the published checkpoints."""
    from ghnas.ghn.checkpoint import load_ghn, save_ghn
    from ghnas.utils.files import require_writable

    if target.suffix not in (".safetensors", ".pt"):
        raise UserError(f"TO must end in .safetensors or .pt, not {target.name!r}")
    require_writable(target)
    ghn = load_ghn(source)
    save_ghn(target, ghn.half() if half else ghn)  # reading makes floats of 32 bits of it again
    say(console(), f"wrote {target}")
