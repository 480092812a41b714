"""`ghnas predict` and `ghnas convert`: weights for any network, and hypernetwork files."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ghnas.cli import options
from ghnas.cli.terminal import console, print_json, say
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    from torch import nn

PREDICT_EXAMPLE = "Example: ghnas predict resnet50 --ghn ghn2.pt -o resnet50.safetensors"
CONVERT_EXAMPLE = "Example: ghnas convert ghn2_cifar10.pt ghn2_cifar10.safetensors"


def predict(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="A classification model of torchvision, or your own package.module:factory.",
        ),
    ],
    ghn: Annotated[
        Path,
        typer.Option("--ghn", metavar="FILE", help="The hypernetwork: .safetensors or .pt."),
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
        int | None,
        options.number_option("--classes", "Replace the head by one of so many classes."),
    ] = None,
    keep_head: Annotated[
        bool, typer.Option("--keep-head", help="Leave the classifier out of what is predicted.")
    ] = False,
    noise: Annotated[
        float | None,
        typer.Option(
            "--noise",
            metavar="X",
            parser=options.positive_number("--noise"),
            help="For fine-tuning: add noise of this strength (3e-5 is a good one) and make "
            "deep layers orthogonal.",
        ),
    ] = None,
    image_size: Annotated[
        int, options.number_option("--image-size", "Pixels of the images each way.")
    ] = 224,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Predict the weights of any network and write them as a state dict."""
    import warnings

    from safetensors.torch import save_file

    from ghnas.architectures.tracing.trace import trace
    from ghnas.ghn.checkpoint import load_ghn
    from ghnas.ghn.conditioning import condition
    from ghnas.ghn.model import with_tied
    from ghnas.utils.files import replace_atomically

    out = console(json)
    path = output or Path(f"{network.rpartition(':')[2].rpartition('.')[2]}.safetensors")
    if path.suffix != ".safetensors":
        raise UserError(f"--output must end in .safetensors, not {path.name!r}")
    hypernetwork = load_ghn(ghn)
    shape = (3, image_size, image_size)
    module = _build(network, classes, shape)
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
    tensors = {key: value.contiguous().clone() for key, value in parameters.items()}
    metadata = {"network": network, "ghn": hypernetwork.info.sha256}
    replace_atomically(path, lambda beside: save_file(tensors, beside, metadata=metadata))
    nodes = len(graph.primitives.nodes)
    count = sum(value.numel() for value in parameters.values())
    say(out, f"{network}: {count:,} values in {len(parameters)} parameters, predicted from")
    say(out, f"{nodes} nodes in {seconds:.2f} s, written to {path}")
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
                "left_out": sorted(set(graph.parameters) - set(parameters)),
            }
        )


def _build(name: str, classes: int | None, image_shape: tuple[int, int, int]) -> nn.Module:
    """A network by name, with another head where one is asked for.

    Raises:
        UserError: If there is none of that name, or it cannot be made.
    """
    from torch import nn

    from ghnas.architectures.tracing.trace import replace_classifier

    if ":" not in name:
        named: nn.Module = _torchvision(name, classes)
        return named
    module = _own(name)
    if not isinstance(module, nn.Module):
        raise UserError(f"{name} makes a {type(module).__name__}, not a torch.nn.Module")
    return module if classes is None else replace_classifier(module, classes, image_shape)


def _torchvision(name: str, classes: int | None) -> Any:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        import difflib

        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(
            f"no classification model {name!r} in torchvision{hint} "
            "(a network of your own is package.module:factory)"
        )
    # what is predicted need not be initialised first, which takes half a minute for these two
    settings: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if name in ("googlenet", "inception_v3"):
        settings["init_weights"] = False
    return torchvision.models.get_model(name, weights=None, **settings)


def _own(name: str) -> Any:
    import importlib

    where, _, factory = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module in the current folder, as with `python -m`
    try:
        module = importlib.import_module(where)
    except ImportError as error:
        raise UserError(f"cannot import {where!r}: {error}") from error
    make = getattr(module, factory, None)
    if not callable(make):
        raise UserError(f"{where} has no function or class {factory!r}")
    try:
        return make()
    except Exception as error:
        raise UserError(f"{name}() failed: {type(error).__name__}: {error}") from error


def convert(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="A hypernetwork's file.")],
    target: Annotated[
        Path,
        typer.Argument(metavar="TO", help="The file to write: .safetensors (ours) or .pt."),
    ],
) -> None:
    """Write a hypernetwork in the other format: .pt is that of the published checkpoints."""
    from ghnas.ghn.checkpoint import load_ghn, save_ghn

    if target.suffix not in (".safetensors", ".pt"):
        raise UserError(f"TO must end in .safetensors or .pt, not {target.name!r}")
    save_ghn(target, load_ghn(source))
    say(console(), f"wrote {target}")
