"""Node embeddings: primitive type and parameter shape, then a gated graph network."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnas.ghn.features import FeatureBatch
from ghnas.ghn.traversal import Traversal


class MLP(nn.Module):
    """Linear layers with ReLU between them and, unless `last` is False, behind the last."""

    def __init__(self, width: int, hidden: tuple[int, ...], last: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        self.fc = nn.Sequential(*(layers if last else layers[:-1]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width) -> (N, hidden[-1])."""
        result: Tensor = self.fc(x)
        return result


def channel_table(classes: int) -> list[int]:
    """Channel counts that have an embedding of their own."""
    counts = {1, 3, classes} | set(range(8, 64, 8)) | set(range(64, 4096, 16))
    return sorted(counts | set(range(4096, 8193, 32)))


def kernel_table(largest: int) -> list[int]:
    """Kernel sizes that have an embedding of their own."""
    return sorted(set(range(1, max(12, largest), 2)) | {14, 16})


def _nearest(table: list[int]) -> npt.NDArray[np.int64]:
    """Index into the table for every size up to its largest: the nearest, the smaller of two."""
    known = np.array(table)
    return np.searchsorted((known[1:] + known[:-1]) / 2, np.arange(table[-1] + 1))


class ShapeEncoder(nn.Module):
    """Embeds (out, in, height, width); sizes without an entry take the nearest one."""

    channel_index: Tensor
    kernel_index: Tensor

    def __init__(self, width: int, classes: int, max_shape: tuple[int, int, int, int]) -> None:
        super().__init__()
        channels, kernels = channel_table(classes), kernel_table(max_shape[3])
        self.embed_spatial = nn.Embedding(len(kernels) + 1, width // 4)
        self.embed_channel = nn.Embedding(len(channels) + 1, width // 4)
        channel_index, kernel_index = _nearest(channels), _nearest(kernels)
        channel_index[4:8] = channels.index(8)  # the published model rounds 4 to 7 up
        kernel_index[2] = kernels.index(3)
        channel_index[0], kernel_index[0] = len(channels), len(kernels)  # no parameter
        self.register_buffer("channel_index", torch.tensor(channel_index), persistent=False)
        self.register_buffer("kernel_index", torch.tensor(kernel_index), persistent=False)

    def forward(self, shape: Tensor) -> Tensor:
        """(N, 4) integer shapes, zero where there is no parameter -> (N, width)."""
        channels = self.channel_index[shape[:, :2].clamp(max=len(self.channel_index) - 1)]
        kernels = self.kernel_index[shape[:, 2:].clamp(max=len(self.kernel_index) - 1)]
        parts = [self.embed_channel(channels), self.embed_spatial(kernels)]
        return torch.cat([part.flatten(1) for part in parts], dim=1)


class GatedGNN(nn.Module):
    """One forward and one backward traversal (section 3 of the paper, equations 3 and 4).

    Nodes of one level do not see each other, so each level of all graphs is one step; the
    messages of a node are computed once, when its state is final for the direction.
    """

    def __init__(self, width: int, virtual_edges: bool) -> None:
        super().__init__()
        hidden = width // 2 if virtual_edges else width
        self.mlp = MLP(width, (hidden, width))
        self.mlp_ve = MLP(width, (width // 2, width)) if virtual_edges else None
        self.gru = nn.GRUCell(width, width)

    def forward(self, x: Tensor, batch: FeatureBatch) -> Tensor:
        """(N, width) -> (N, width)."""
        for traversal in (batch.forward, batch.backward):
            x = self._traverse(x[traversal.order], traversal)[traversal.rank]
        return x

    def _traverse(self, x: Tensor, traversal: Traversal) -> Tensor:
        """States in the order of rank -> updated states in the order of rank."""
        width, sizes = x.shape[1], traversal.sizes
        weight, bias = self.gru.weight_ih.t(), self.gru.bias_ih
        # a node's own part of the gates does not depend on its messages
        own = F.linear(x, self.gru.weight_hh, self.gru.bias_hh).split((2 * width, width), dim=1)
        parts = zip(traversal.edges(), *(item.split(sizes) for item in (x, *own)), strict=True)
        send, states = self._sender(), []
        sent = _Sent(len(x) * traversal.kinds, x)
        for edges, before, own_gates, own_new in parts:
            received = torch.addmm(bias, edges.receive(sent.all), weight)
            gates, new = received.split((2 * width, width), dim=1)
            reset, update = (gates + own_gates).sigmoid_().chunk(2, dim=1)
            state = torch.lerp((new + reset * own_new).tanh_(), before, update)
            sent.append(send(state).view(-1, width))
            states.append(state)
        return torch.cat(states)

    def _sender(self) -> Callable[[Tensor], Tensor]:
        """States (n, width) -> messages (n, kinds * width) before their last ReLU.

        Both MLPs run as one, their second layers side by side in a block-diagonal matrix.
        """
        mlps = [self.mlp] if self.mlp_ve is None else [self.mlp, self.mlp_ve]
        first, second = ([cast(nn.Linear, mlp.fc[i]) for mlp in mlps] for i in (0, 2))
        first_weight = torch.cat([layer.weight for layer in first]).t()
        first_bias = torch.cat([layer.bias for layer in first])
        second_weight = torch.block_diag(*[layer.weight for layer in second]).t()
        second_bias = torch.cat([layer.bias for layer in second])

        def send(state: Tensor) -> Tensor:
            hidden = torch.addmm(first_bias, state, first_weight).relu_()
            return torch.addmm(second_bias, hidden, second_weight)

        return send


class _Sent:
    """The messages of the nodes done so far; grows in place unless gradients are needed."""

    def __init__(self, count: int, like: Tensor) -> None:
        self._growing = torch.is_grad_enabled()
        self._end = 0
        self.all = like.new_empty(0 if self._growing else count, like.shape[1])

    def append(self, messages: Tensor) -> None:
        """Add messages, through their ReLU."""
        if self._growing:
            self.all = torch.cat([self.all, messages.relu()])
        else:
            begin, self._end = self._end, self._end + len(messages)
            torch.clamp_min(messages, 0, out=self.all[begin : self._end])
