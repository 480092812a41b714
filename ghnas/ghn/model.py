"""The graph hypernetwork: graphs in, parameters by name out (GHN-2, arXiv 2110.13100)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.graph import Graph, Shape
from ghnas.architectures.paths import CUTOFF
from ghnas.architectures.tracing.trace import trace
from ghnas.executors.stacked import StackedParameters
from ghnas.ghn.config import GHNConfig, GHNInfo
from ghnas.ghn.decoder import (
    VECTORS,
    ConvDecoder,
    MLPDecoder,
    decoded_shape,
    fit,
    normalise,
    tile,
)
from ghnas.ghn.encoder import MLP, GatedGNN, ShapeEncoder
from ghnas.ghn.features import (
    PRIMITIVES,
    DecodeGroup,
    FeatureBatch,
    batch_features,
    graph_features,
)
from ghnas.utils.errors import first_line


def read_graphs(
    graphs: Sequence[Graph], config: GHNConfig, keep_head: bool = False
) -> FeatureBatch:
    """A batch of graphs for a hypernetwork of that configuration, with or without classifiers."""
    cutoff, kept = CUTOFF if config.ve else 1, config.num_classes if keep_head else None
    return batch_features(graph_features(graphs, cutoff, kept), config.ve)


class GHN(nn.Module):
    """Predicts the parameters of many architectures in one pass.

    Args:
        config: How it is built.
        info: What it was trained for; default: nothing in particular.
    """

    def __init__(self, config: GHNConfig, info: GHNInfo | None = None) -> None:
        super().__init__()
        self.config = config
        self.info = info or GHNInfo()
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
        result = [
            fit(tile(x, decoded_shape(group.role, group.shape)), group.role, group.shape)
            for x, group in zip(self._decode(batch.groups, states), batch.groups, strict=True)
        ]
        if not self.config.weight_norm:
            return result
        return [
            normalise(x, group.role, group.shape)
            for x, group in zip(result, batch.groups, strict=True)
        ]

    def _decode(self, groups: Sequence[DecodeGroup], states: Sequence[Tensor]) -> list[Tensor]:
        """Raw predictions: (K, ...) for each group, not larger than its decoded shape."""
        result: dict[int, Tensor] = {}
        matrices = [i for i, group in enumerate(groups) if group.role not in VECTORS]
        if matrices:
            shapes = [self._wanted(groups[i]) for i in matrices]
            weights = self.decoder([states[i] for i in matrices], shapes)
            for index, decoded in zip(matrices, weights, strict=True):
                if groups[index].role == "head_weight":
                    decoded = self.decoder.head(states[index], decoded).flatten(2)
                result[index] = decoded
        vectors = [i for i, group in enumerate(groups) if group.role in VECTORS]
        if vectors:
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
        return decoded_shape(group.role, group.shape)

    def predict(
        self,
        module: nn.Module,
        image_shape: Shape = (3, 224, 224),
        keep_head: bool = False,
    ) -> dict[str, Tensor]:
        """Parameters of any network.

        Args:
            module: A classifier of images.
            image_shape: (C, H, W) of an image; see `ghnas.architectures.tracing.trace.trace`.
            keep_head: Leave the classifier out.

        Returns:
            A tensor for each of the module's floating-point parameters, by name.

        Raises:
            UserError: If the module cannot be traced.
        """
        predicted = self.predict_graphs([trace(module, image_shape)], keep_head)[0]
        return with_tied(module, predicted)

    def initialize(
        self,
        network: Architecture | nn.Module,
        image_shape: Shape = (3, 224, 224),
        keep_head: bool = False,
    ) -> nn.Module:
        """A network with predicted parameters.

        Batch-norm's running statistics are not predicted: evaluate with the statistics of the
        batch (these modules in `train()`), or train for a while.

        Args:
            network: An architecture of a search space, which is built; or any classifier of
                images, which gets the parameters.
            image_shape: As in `predict`; an architecture has its own.
            keep_head: Leave the classifier as it is.

        Returns:
            A new network on the hypernetwork's device, or the module that was given.

        Raises:
            UserError: If the module cannot be traced.

        Example:
            >>> import ghnas
            >>> ghn = ghnas.load_ghn("darts-embedded")
            >>> network = ghn.initialize(ghnas.load_space("darts").sample(seed=0))
        """
        if isinstance(network, Architecture):
            module: nn.Module = network.build().to(self.embed.weight.device)
            predicted = self.predict_graphs([network.graph], keep_head)[0]
        else:
            module, predicted = network, self.predict(network, image_shape, keep_head)
        module.load_state_dict(predicted, strict=False)
        return module

    @torch.no_grad()
    def predict_population(self, batch: FeatureBatch, count: int) -> StackedParameters:
        """Parameters of several architectures, without gradients, as one tensor for each shape.

        Args:
            batch: As `read_graphs` reads them.
            count: How many there are.
        """
        stacks = self(batch.to(self.embed.weight.device))
        return StackedParameters(stacks, batch.rows, range(count))

    @torch.no_grad()
    def predict_graphs(
        self, graphs: Sequence[Graph], keep_head: bool = False
    ) -> list[dict[str, Tensor]]:
        """Parameters of several architectures, without gradients, on the hypernetwork's device.

        Args:
            graphs: The architectures.
            keep_head: Leave the classifiers out.

        Returns:
            For each graph its parameters by name, in the order of its nodes.
        """
        batch = read_graphs(graphs, self.config, keep_head)
        result = batch.by_graph(self(batch.to(self.embed.weight.device)), len(graphs))
        return [
            {name: found[name] for name in graph.parameters if name in found}
            for graph, found in zip(graphs, result, strict=True)
        ]


class _Uninitialised(TorchFunctionMode):
    """Modules are built without initial values: drawing them for tensors without memory has torch
    import its compiler, which takes a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def restored(config: Any, info: GHNInfo, tensors: Mapping[str, Tensor]) -> GHN:
    """A hypernetwork with the weights of a file.

    Args:
        config: What the file says of how it is built.
        info: What it was trained for.
        tensors: Its weights, as the file has them.

    Raises:
        ValueError: If the settings are none, or the weights are not of such a hypernetwork.
    """
    try:
        known = GHNConfig(**config)
        # a damaged file may ask for more than there is memory
        with torch.device("meta"), _Uninitialised():
            shapes = {key: value.shape for key, value in GHN(known).state_dict().items()}
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"config: {first_line(error)}") from error
    found = {key: getattr(value, "shape", None) for key, value in tensors.items()}
    if wrong := [key for key in {**shapes, **found} if found.get(key) != shapes.get(key)]:
        raise ValueError(
            f"the weight {wrong[0]} has shape {found.get(wrong[0])}, not {shapes.get(wrong[0])}"
        )
    ghn = GHN(known, info)
    ghn.load_state_dict(dict(tensors))
    return ghn


def with_tied(module: nn.Module, predicted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Predicted parameters with those that a module knows under several names."""
    first = {id(value): name for name, value in module.named_parameters()}
    names = ((name, first[id(v)]) for name, v in module.named_parameters(remove_duplicate=False))
    return {name: predicted[source] for name, source in names if source in predicted}
