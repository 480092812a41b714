"""Many networks that train together on a GPU, each with running statistics of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ghnas.architectures.network import Network
from ghnas.architectures.ops import Op
from ghnas.executors.base import losses_of
from ghnas.executors.grouped.plan import Statistics, plan
from ghnas.executors.stacked import StackedParameters, rows_of


class GroupedNetworks:
    """Trains and evaluates networks in place: their tensors become views of a few stacked ones.

    Args:
        networks: For images of one shape, on one device.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        graphs = [network.graph for network in networks]
        named = [dict(network.named_parameters()) for network in networks]
        rows = rows_of(graphs)
        with torch.no_grad():
            stacked = StackedParameters.of(named, rows).tensors
        self._tensors = [tensor.requires_grad_() for tensor in stacked]
        self._plan = plan(graphs, rows, range(len(graphs)))
        self._parameters = [[named[index][name] for index, name in own] for own in rows]
        for tensor, own in zip(self._tensors, self._parameters, strict=True):
            for row, parameter in zip(tensor.detach(), own, strict=True):
                parameter.data = row
        self._buffers: dict[int, list[Tensor]] = {}
        for number, step in enumerate(self._plan.schedule.steps):
            assert isinstance(step.spec.op, Op)
            for key in step.spec.op.buffer_shapes(*step.spec.input_shapes):
                names = [graphs[g].nodes[n].name for g, n in step.members]
                members = zip(step.members, names, strict=True)
                owners = [networks[g].get_submodule(name) for (g, _), name in members]
                joined = torch.cat([owner.get_buffer(key) for owner in owners])
                self._buffers.setdefault(number, []).append(joined)
                for owner, part in zip(owners, joined.chunk(len(owners)), strict=True):
                    setattr(owner, key, part)

    def losses(self, images: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy of each network in nats, (networks,); its gradients are left in
        the networks' parameters, and running statistics take their share of the batch's.

        Args:
            images: (B, C, H, W), normalised, the same for all.
            labels: (B,).
        """
        for tensor in self._tensors:
            tensor.grad = None
        logits = self._plan.run(self._tensors, images, statistics=Statistics(self._buffers))
        losses, _ = losses_of(logits, labels)
        losses.sum().backward()
        for tensor, own in zip(self._tensors, self._parameters, strict=True):
            for row, parameter in zip(tensor.grad, own, strict=True):  # type: ignore[arg-type]
                parameter.grad = row
        return losses.detach()

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Logits (networks, B, classes) with running statistics."""
        statistics = Statistics(self._buffers, training=False)
        return self._plan.run(self._tensors, images, statistics=statistics)
