"""Loads exported networks where there is no ghnas, and compares them with what they should say.

    /tmp/plain/bin/python benchmarks/exports_alone.py FOLDER

Needs torch, onnxruntime, numpy and safetensors alone; `exports.py` writes the folder and runs this.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch


def run_python(path: Path, images: np.ndarray) -> np.ndarray:
    spec = importlib.util.spec_from_file_location("network", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.load(str(path.with_suffix(".safetensors")))
    with torch.no_grad():
        found: np.ndarray = network(torch.from_numpy(images)).numpy()
    return found


def run_torch(path: Path, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        program = torch.export.load(path).module()
        found: np.ndarray = program(torch.from_numpy(images)).numpy()
    return found


def run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["logits"], {"images": images})[0]
    return found


WAYS: dict[str, Callable[[Path, np.ndarray], np.ndarray]] = {
    "py": run_python,
    "pt2": run_torch,
    "onnx": run_onnx,
}


def main() -> None:
    if importlib.util.find_spec("ghnas") is not None:
        raise SystemExit("ghnas is here: run this with a Python that does not have it")
    folder, found = Path(sys.argv[1]), {}
    for answer in sorted(folder.glob("*/expected.npy")):
        expected, images = np.load(answer), np.load(answer.with_name("images.npy"))
        found[answer.parent.name] = {
            suffix: difference(way, answer.with_name(f"network.{suffix}"), images, expected)
            for suffix, way in WAYS.items()
        }
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    print(json.dumps({"versions": versions, "networks": found}))


def difference(
    way: Callable[[Path, np.ndarray], np.ndarray],
    path: Path,
    images: np.ndarray,
    expected: np.ndarray,
) -> float | str:
    """The largest difference, of the largest logit; or why there is none."""
    try:
        found = way(path, images)
    except Exception as error:  # whatever keeps a file from loading
        return f"{type(error).__name__}: {error}"
    return float(np.abs(found - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    main()
