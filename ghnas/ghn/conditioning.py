"""Predicted parameters made fit for fine-tuning: noise and orthogonal deep layers.

After B. Knyazev, "Pretraining a Neural Network before Knowing Its Architecture" (2022,
arXiv 2207.10049): many predicted filters of a layer are nearly alike, so that their gradients
are; a little noise and, in deep wide layers, the nearest orthogonal directions tell them apart.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

DEFAULT_NOISE = 3e-5
"""The report's factor for ResNet-50 and ConvNeXt."""
DEEP = 2 / 3
"""Share of the layers that stay as predicted: the report starts at layer 37 of ResNet-50's 54."""
WIDE = 64
"""Layers of at most so many channels stay as predicted: the decoder does not tile them."""


def condition(
    parameters: Mapping[str, Tensor], noise: float = DEFAULT_NOISE, seed: int = 0
) -> dict[str, Tensor]:
    """Add noise to all layers but the last and make deep wide weights orthogonal.

    Args:
        parameters: Predicted parameters in the order of the layers; the last weight is the
            classifier's.
        noise: Factor of the noise, in units of the spread of a layer's correlations.
        seed: Of the noise.

    Returns:
        New parameters; the classifier's are the old ones.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = [name for name, value in parameters.items() if _is_matrix(value)]
    first_deep, last = round(DEEP * len(layers)), layers[-1] if layers else ""
    head = last.rpartition(".")[0]
    result: dict[str, Tensor] = {}
    scale, index = 0.0, 0
    for name, value in parameters.items():
        if name == last or name.rpartition(".")[0] == head:
            result[name] = value
            continue
        if _is_matrix(value):
            scale = _spread(value)
            index += 1
        noisy = value + noise * scale * torch.randn(value.shape, generator=generator).to(value)
        deep = _is_matrix(value) and index > first_deep and max(value.shape[:2]) > WIDE
        result[name] = _orthogonal(noisy) if deep else noisy
    return result


def _is_matrix(value: Tensor) -> bool:
    return value.dim() > 1 and min(value.shape[0], value[0].numel()) > 1


def _tall(value: Tensor) -> Tensor:
    """A weight as a matrix with at least as many rows as columns."""
    matrix = value.flatten(1)
    return matrix.t() if matrix.shape[0] < matrix.shape[1] else matrix


def _spread(value: Tensor) -> float:
    """Standard deviation of the correlations between a layer's rows."""
    return float(torch.corrcoef(_tall(value)).nan_to_num().std())


def _orthogonal(value: Tensor) -> Tensor:
    """Orthonormal columns (or rows) that span what the weight spans; signs as it had them."""
    q, r = torch.linalg.qr(_tall(value))
    q = q * torch.sign(torch.diagonal(r))
    result: Tensor = q.t() if len(value) < value[0].numel() else q
    return result.reshape(value.shape)
