"""Exports of a trained network: a `torch.export` program, an ONNX file, or Python source."""

from __future__ import annotations

import importlib.util
import io
import json
import tempfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ghnas.architectures.network import Network
from ghnas.exports.source import python_source
from ghnas.training.saved import SavedNetwork, read
from ghnas.utils.errors import UserError
from ghnas.utils.files import write_atomically
from ghnas.utils.tensor_files import write_tensors

Format = Literal["torch", "onnx", "python"]
"""What a network can be exported to."""
SUFFIXES: dict[Format, str] = {"torch": ".pt2", "onnx": ".onnx", "python": ".py"}
OPSET = 18
"""Of ONNX."""
TOLERANCE = 1e-4
"""Largest difference that is accepted between an export and the network, of its largest logit."""


def export(
    network: str | PathLike[str], output: str | PathLike[str], format: str | None = None
) -> Path:
    """Write a fine-tuned network as a program that needs nothing of ghnas.

    All of them take images (B, C, H, W) of any batch size, with values in [0, 1]: what
    normalises them is inside. They give logits (B, classes) and hold the names of the classes.
    What was written is run once and compared with the network.

    Args:
        network: The folder that fine-tuning wrote, or the `model.safetensors` in it.
        output: The file to write. Beside a `.py` its weights lie in a `.safetensors`.
        format: `torch`, a program of `torch.export` (.pt2, names in the extra file
            `classes.json`); `onnx` (.onnx, names in the metadata `classes`); `python`, a readable
            module (.py); None: by the suffix of `output`.

    Returns:
        The file.

    Raises:
        UserError: If there is no network, the suffix or the format is none of these, a package is
            missing, or the export computes something else than the network.

    Example:
        >>> import tempfile
        >>> import ghnas
        >>> data = ghnas.load_data("embedded", train_limit=64)
        >>> space = ghnas.load_space("darts").with_skeleton(cells=1, channels=2)
        >>> folder = tempfile.mkdtemp()
        >>> trained = ghnas.finetune(space.sample(seed=0), data, epochs=1, path=folder)
        >>> ghnas.export(folder, f"{folder}/network.py").name
        'network.py'
    """
    path = Path(output)
    chosen = _format(path, format)
    saved = read(network)
    path.parent.mkdir(parents=True, exist_ok=True)
    WRITERS[chosen](saved, path)
    return path


def _format(path: Path, asked: str | None) -> Format:
    by_suffix = {suffix: name for name, suffix in SUFFIXES.items()}
    name = asked or by_suffix.get(path.suffix)
    for known, suffix in SUFFIXES.items():
        if name == known:
            if path.suffix != suffix:
                raise UserError(f"{path.name!r} must end in {suffix}, as the format is {name}")
            return known
    raise UserError(f"unknown format {asked or path.suffix!r}: use torch, onnx or python")


def write_python(saved: SavedNetwork, path: Path) -> None:
    """Write a network as `path` and its weights beside it."""
    _compare(saved, _load_module(path, _write_source(saved, path)))


def _write_source(saved: SavedNetwork, path: Path) -> Path:
    """Write a network as `path`, and its weights beside it, into the file that is returned."""
    if not path.stem.isidentifier():
        raise UserError(
            f"{path.name!r} cannot be imported: name it with letters, digits and _ only"
        )
    weights = path.with_suffix(".safetensors")
    source = python_source(
        saved.network.graph, saved.classes, saved.mean, saved.std, path.stem, weights.name
    )
    tensors = source.tensors(saved.network.state_dict())
    write_tensors(weights, tensors, {})
    write_atomically(path, source.text)
    return weights


def write_torch(saved: SavedNetwork, path: Path) -> None:
    """Write a network as a program of `torch.export`."""
    program = torch.export.export(
        plain_module(saved), (_images(saved, 2),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    content = io.BytesIO()  # torch warns of a file beside, with another suffix
    names = {"classes.json": json.dumps(list(saved.classes))}
    torch.export.save(program, content, extra_files=names)
    write_atomically(path, content.getvalue())
    _compare(saved, torch.export.load(path).module())


def write_onnx(saved: SavedNetwork, path: Path) -> None:
    """Write a network as an ONNX file, and run it with onnxruntime."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ImportError as error:
        raise UserError(
            f"ONNX needs the package {error.name}: pip install 'ghnas[onnx]'"
        ) from error
    program = torch.onnx.export(
        plain_module(saved),
        (_images(saved, 2),),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {"classes": json.dumps(list(saved.classes))})
    write_atomically(path, model.SerializeToString())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    _compare(
        saved, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    )


WRITERS: dict[Format, Callable[[SavedNetwork, Path], None]] = {
    "torch": write_torch,
    "onnx": write_onnx,
    "python": write_python,
}


def plain_module(saved: SavedNetwork) -> nn.Module:
    """The network as a module of PyTorch's own layers, in evaluation mode, for images in [0, 1]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.py"
        return _load_module(path, _write_source(saved, path))


def _load_module(path: Path, weights: Path) -> nn.Module:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast(nn.Module, module.load(str(weights)))


def _images(saved: SavedNetwork, count: int) -> Tensor:
    shape = saved.network.graph.nodes[0].shape
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def _compare(saved: SavedNetwork, exported: Callable[[Tensor], Tensor]) -> None:
    """Raise an error if an export computes something else, also for another batch size."""
    images = _images(saved, 3)
    with torch.no_grad():
        expected, found = logits(saved, images), exported(images)
    scale = float(expected.abs().max())
    if not torch.allclose(found, expected, rtol=0, atol=TOLERANCE * scale, equal_nan=True):
        raise UserError(
            f"the exported network computes something else (by {(found - expected).abs().max():.1e}"
            f" where the largest logit is {scale:.1e}): please report this, with the network"
        )


def logits(saved: SavedNetwork, images: Tensor) -> Tensor:
    """What a network says of images (B, C, H, W) with values in [0, 1]: (B, classes)."""
    mean, std = (torch.tensor(value).view(1, -1, 1, 1) for value in (saved.mean, saved.std))
    network: Network = saved.network
    result: Tensor = network((images - mean) / std)
    return result
