"""The graph hypernetwork: graphs in, parameters by name out (GHN-2, arXiv 2110.13100)."""

from __future__ import annotations

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
    DecodeGroup,
    FeatureBatch,
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


def read_graphs(graphs: Sequence[Graph], config: GHNConfig) -> FeatureBatch:
    """A batch of graphs for a hypernetwork of that configuration."""
    cutoff = CUTOFF if config.ve else 1
    return batch_features([graph_features(graph, cutoff) for graph in graphs], config.ve)


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
        kind = ConvDecoder if config.decoder == "conv" else MLPDecoder
        self.decoder: ConvDecoder | MLPDecoder = kind(width, shape, classes)
        channels = max(shape[:2])
        self.decoder_1d = MLP(width, (2 * width, 2 * channels), last=False)
        self.bias_class = nn.Sequential(nn.ReLU(), nn.Linear(channels, classes))

    def embeddings(self, batch: FeatureBatch) -> Tensor:
        """Final node states (N, hid)."""
        x = self.embed(batch.primitive) + self.shape_enc(batch.shape)
        x = self.gnn(x, batch) if self.config.hypernet == "gatedgnn" else self.gnn(x)
        result: Tensor = self.ln(x)
        return result

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        """Predict parameters: for each decode group of the batch its members, (K, *shape)."""
        all_states = self.embeddings(batch)
        nodes = batch.nodes.split([len(group.members) for group in batch.groups])
        states = [all_states[index] for index in nodes]
        result = self._decode(batch.groups, states)
        result = [tile(x, group.shape) for x, group in zip(result, batch.groups, strict=True)]
        if not self.config.weight_norm:
            return result
        return [
            normalise(x, group.role, group.shape)
            for x, group in zip(result, batch.groups, strict=True)
        ]

    def _decode(self, groups: Sequence[DecodeGroup], states: Sequence[Tensor]) -> list[Tensor]:
        """Raw predictions: (K, ...) for each group, not larger than its shape."""
        result: dict[int, Tensor] = {}
        matrices = [i for i, group in enumerate(groups) if len(group.shape) > 1]
        weights = self.decoder(
            [states[i] for i in matrices], [self._wanted(groups[i]) for i in matrices]
        )
        for index, decoded in zip(matrices, weights, strict=True):
            if groups[index].role == "head_weight":
                decoded = self.decoder.head(states[index], decoded)
            result[index] = decoded if len(groups[index].shape) == 4 else decoded.flatten(2)
        vectors = [i for i, group in enumerate(groups) if len(group.shape) == 1]
        both = self.decoder_1d(torch.cat([states[i] for i in vectors]))
        parts = both.view(len(both), 2, -1).split([len(states[i]) for i in vectors])
        for index, part in zip(vectors, parts, strict=True):
            role = groups[index].role
            if role == "head_bias":
                part = self.bias_class(part)
            result[index] = part[:, 0 if role == "norm_weight" else 1]
        return [result[index] for index in range(len(groups))]

    def _wanted(self, group: DecodeGroup) -> tuple[int, ...]:
        """The four-dimensional shape to decode for a group."""
        if group.role == "head_weight":
            return (self.config.max_shape[0], group.shape[1], 1, 1)
        return (*group.shape, 1, 1) if len(group.shape) == 2 else group.shape

    @torch.no_grad()
    def predict(self, graphs: Sequence[Graph]) -> list[dict[str, Tensor]]:
        """Parameters of several architectures, without gradients, on the hypernetwork's device."""
        batch = read_graphs(graphs, self.config)
        result: list[dict[str, Tensor]] = [{} for _ in graphs]
        stacks = self(batch.to(self.embed.weight.device))
        for group, stack in zip(batch.groups, stacks, strict=True):
            for (index, name), tensor in zip(group.members, stack.unbind(0), strict=True):
                result[index][name] = tensor
        return result
