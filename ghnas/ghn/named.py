"""Networks by name: of torchvision, or of the user's own module."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from typing import Any

import torchvision
from torch import nn

from ghnas.architectures.graph import Shape
from ghnas.architectures.tracing.trace import replace_classifier
from ghnas.utils.errors import UserError, first_line


def named_network(name: str, classes: int | None, image_shape: Shape) -> nn.Module:
    """A network by name, not initialised for use.

    Args:
        name: A model of torchvision, or `package.module:factory`.
        classes: The number of classes of another classifier; None keeps its own.
        image_shape: (C, H, W) of its images, by which its classifier is found.

    Raises:
        UserError: If there is none of that name, or it cannot be made.
    """
    if ":" not in name:
        return _torchvision(name, classes)
    module = _own(name)
    if not isinstance(module, nn.Module):
        raise UserError(
            f"{name} makes an object of type {type(module).__name__}, not a torch.nn.Module"
        )
    return module if classes is None else replace_classifier(module, classes, image_shape)


def _torchvision(name: str, classes: int | None) -> nn.Module:
    known = torchvision.models.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(
            f"no model {name!r} in torchvision{hint} "
            "(a network of your own is package.module:factory)"
        )
    settings: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    builder = torchvision.models.get_model_builder(name)
    if "weights_backbone" in inspect.signature(builder).parameters:
        settings["weights_backbone"] = None  # or they would be downloaded
    # what is predicted need not be initialised first, which takes half a minute for these two
    if name in ("googlenet", "inception_v3"):
        settings["init_weights"] = False
    network: nn.Module = builder(weights=None, **settings)
    return network


def _own(name: str) -> Any:
    where, _, factory = name.partition(":")
    if not all(part.isidentifier() for part in [*where.split("."), factory]):
        raise UserError(f"{name!r} is no network: give package.module:factory")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module in the current folder, as with `python -m`
    try:
        module = importlib.import_module(where)
    except (Exception, SystemExit) as error:
        raise UserError(f"cannot import {where!r}: {first_line(error)}") from error
    make = getattr(module, factory, None)
    if not callable(make):
        raise UserError(f"{where} has no function or class {factory!r}")
    try:
        return make()
    except (Exception, SystemExit) as error:
        raise UserError(f"{name}() failed: {type(error).__name__}: {error}") from error
