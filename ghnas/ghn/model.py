"""The graph hypernetwork: graphs in, parameters by name out (GHN-2, arXiv 2110.13100)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ghnas.ghn.decoder import ConvDecoder, MLPDecoder, normalise, tile
from ghnas.ghn.encoder import MLP, GatedGNN, ShapeEncoder
from ghnas.ghn.features import (
    CUTOFF,
    PRIMITIVES,
    FeatureBatch,
    Slot,
    batch_features,
    graph_features,
)
from ghnas.graph import Graph


@dataclass(frozen=True)
class GHNConfig:
    """What a hypernetwork is built from.

    Args:
        num_classes: Classes of the networks that it predicts for.
        max_shape: Largest (out, in, height, width) that is decoded; larger ones are tiled.
        hid: Width of the node states; a multiple of 4.
        hypernet: `gatedgnn`, or `mlp` for the baseline that does not see the graph.
        decoder: `conv` or `mlp`.
        weight_norm: Normalise the predicted parameters.
        ve: Virtual edges.
        layernorm: LayerNorm on the final node states.
    """

    num_classes: int = 10
    max_shape: tuple[int, int, int, int] = (64, 64, 7, 7)
    hid: int = 32
    hypernet: Literal["gatedgnn", "mlp"] = "gatedgnn"
    decoder: Literal["conv", "mlp"] = "conv"
    weight_norm: bool = True
    ve: bool = True
    layernorm: bool = True

    def as_dict(self) -> dict[str, object]:
        """As plain data."""
        return asdict(self) | {"max_shape": list(self.max_shape)}


PRESETS: dict[str, dict[str, object]] = {
    "ghn2": {},
    "ghn1": {"ve": False, "weight_norm": False, "layernorm": False},
    "mlp": {"hypernet": "mlp", "ve": False, "weight_norm": False, "layernorm": False},
}
"""Settings that differ from GHN-2, by the paper's names."""


class GHN(nn.Module):
    """Predicts the parameters of many architectures in one pass."""

    def __init__(self, config: GHNConfig) -> None:
        super().__init__()
        self.config = config
        width, shape, classes = config.hid, config.max_shape, config.num_classes
        self.embed = nn.Embedding(len(PRIMITIVES), width)
        self.shape_enc = ShapeEncoder(width, classes, shape)
        self.gnn: nn.Module
        if config.hypernet == "gatedgnn":
            self.gnn = GatedGNN(width, config.ve)
        else:
            self.gnn = MLP(width, (width, width))
        self.ln = nn.LayerNorm(width) if config.layernorm else nn.Identity()
        decoders = {"conv": ConvDecoder, "mlp": MLPDecoder}
        self.decoder = decoders[config.decoder](width, shape, classes)
        channels = max(shape[:2])
        self.decoder_1d = MLP(width, (2 * width, 2 * channels), last=False)
        self.bias_class = nn.Sequential(nn.ReLU(), nn.Linear(channels, classes))

    @property
    def cutoff(self) -> int:
        """Longest virtual edge to build."""
        return CUTOFF if self.config.ve else 1

    def embeddings(self, batch: FeatureBatch) -> Tensor:
        """Final node states (N, hid)."""
        x = self.embed(batch.primitive) + self.shape_enc(batch.shape)
        x = self.gnn(x, batch) if self.config.hypernet == "gatedgnn" else self.gnn(x)
        result: Tensor = self.ln(x)
        return result

    def forward(self, batch: FeatureBatch) -> list[dict[str, Tensor]]:
        """Predict parameters: for each graph of the batch a tensor for each of its parameters."""
        states = self.embeddings(batch)
        groups: dict[tuple[str, tuple[int, ...]], list[tuple[int, Slot]]] = defaultdict(list)
        for index, slots in enumerate(batch.slots):
            for slot in slots:
                groups[slot.role, slot.shape].append((index, slot))
        result: list[dict[str, Tensor]] = [{} for _ in batch.slots]
        for (role, shape), members in groups.items():
            nodes = torch.tensor([slot.node for _, slot in members])
            weights = self._decode(states[nodes.to(states.device)], role, shape)
            weights = tile(weights, shape)
            if self.config.weight_norm:
                weights = normalise(weights, role, shape)
            for (index, slot), tensor in zip(members, weights.unbind(0), strict=True):
                result[index][slot.name] = tensor
        return result

    def _decode(self, states: Tensor, role: str, shape: tuple[int, ...]) -> Tensor:
        if role == "head_weight":
            return self.decoder.head(states, shape[1])
        if len(shape) == 2:
            return self.decoder(states, (*shape, 1, 1)).flatten(2)
        if len(shape) == 4:
            return self.decoder(states, shape)
        vectors = self.decoder_1d(states).view(len(states), 2, -1)
        if role == "head_bias":
            vectors = self.bias_class(vectors)
        result: Tensor = vectors[:, 0 if role == "norm_weight" else 1]
        return result

    @torch.no_grad()
    def predict(self, graphs: Sequence[Graph]) -> list[dict[str, Tensor]]:
        """Parameters of several architectures, without gradients, on the hypernetwork's device."""
        batch = batch_features([graph_features(graph, self.cutoff) for graph in graphs])
        return self(batch.to(self.embed.weight.device))
