"""How networks are fine-tuned, and what the field adds to SGD where a found architecture is
trained in full: cutout, path dropout, an auxiliary head, smoothed labels, averaged weights, lower
precision, accumulated gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ghnas.architectures.graph import Graph, Node
from ghnas.architectures.network import Network, traverse
from ghnas.data.augmentation import Augment, Crops, crops_of
from ghnas.executors.trainable import TrainableNetwork

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Recipe:
    """What is added to plain SGD; nothing by default.

    Args:
        cutout: Side in pixels of a square that is set to the mean in every training image
            (DeVries and Taylor, arXiv 1708.04552).
        path_dropout: Share of the paths into sums that are left out of an image's forward at the
            last step; it rises linearly from 0 (Larsson et al., "FractalNet", ICLR 2017; DARTS).
        auxiliary: Weight of the loss of a second classifier at two thirds of the depth (DARTS:
            0.4); it is trained and then dropped.
        label_smoothing: Share of the labels that is spread over all classes.
        average: Decay of the mean of the weights that is evaluated and kept; 0: the last ones.
        precision: Of forward and backward; `bf16` is torch.autocast's.
        accumulate: Parts in which a step's images are run one after the other, for less memory;
            batch-norm sees a part at a time.
    """

    cutout: int = 0
    path_dropout: float = 0.0
    auxiliary: float = 0.0
    label_smoothing: float = 0.0
    average: float = 0.0
    precision: Precision = "fp32"
    accumulate: int = 1


PLAIN = Recipe()
"""Adds nothing."""


@dataclass(frozen=True)
class FinetuneSettings:
    """How to fine-tune: SGD with Nesterov momentum 0.9 and a cosine rate.

    Args:
        epochs: Passes over the training images.
        batch_size: Images in a step.
        learning_rate: At the first step.
        weight_decay: On all parameters.
        seed: Of the images' order and of Kaiming initialisation.
        baseline: Also train from Kaiming initialisation.
        recipe: What is added to plain SGD.
        shots: Training images of each class; None: all.
        augment: `shift`: training images are moved by up to a pixel; `crop`: they are random
            resized crops, of the files' own pixels where the images are on the disk;
            `randaugment`: crops with two of RandAugment's operations on each. All are mirrored
            where the data allows it.
    """

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 0.1
    weight_decay: float = 3e-4
    seed: int = 0
    baseline: bool = False
    recipe: Recipe = PLAIN
    shots: int | None = None
    augment: Augment = "shift"

    def as_dict(self) -> dict[str, Any]:
        """As plain data; what changes nothing is left out, as earlier versions did not have it."""
        content = asdict(self)
        if self.recipe == PLAIN:
            del content["recipe"]
        if self.shots is None:
            del content["shots"]
        if self.augment == "shift":
            del content["augment"]
        return content

    def crops(self, mirror: bool) -> Crops | None:
        """The random crops, if it asks for them; `mirror`: whether the data allows that."""
        return crops_of(self.augment, self.seed, mirror)


class RecipeNetwork(TrainableNetwork):
    """Trains a network by a recipe, with PyTorch's own operations.

    Args:
        network: Its own tensors are trained.
        recipe: How.
        seed: Of what is cut out and left out; a step's depend on seed and step alone.
        steps: Of the whole training.
    """

    def __init__(self, network: Network, recipe: Recipe, seed: int, steps: int) -> None:
        self.network, self.recipe, self.seed, self.steps = network, recipe, seed, steps
        self.done = 0
        self._rng: torch.Generator | None = None
        self._indices = {id(node): index for index, node in enumerate(network.graph.nodes)}
        device = next(network.parameters()).device
        self.paths = droppable_paths(network.graph) if recipe.path_dropout else {}
        self.head: nn.Module | None = None
        if recipe.auxiliary:
            self.source = auxiliary_source(network.graph)
            classes = network.graph.nodes[-1].shape[0]
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.head = auxiliary_head(network.graph.nodes[self.source].shape[0], classes)
            self.head.to(device)
        self.averaged: AveragedModel | None = None
        if recipe.average:
            average = get_ema_multi_avg_fn(recipe.average)
            self.averaged = AveragedModel(network, multi_avg_fn=average, use_buffers=True)

    @property
    def parameters(self) -> list[Tensor]:
        """The network's, in the order of the graph, and the auxiliary head's."""
        named = dict(self.network.named_parameters())
        own: list[Tensor] = [named[name] for name in self.network.graph.parameters]
        return own + (list(self.head.parameters()) if self.head else [])

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The mean loss in nats of a step or a part of it, with gradients; see `Recipe`."""
        recipe, kind = self.recipe, images.device.type
        if self._rng is None:  # the parts of a step go on with it
            self._rng = torch.Generator().manual_seed((self.seed << 32) + self.done)
        rng = self._rng
        if recipe.cutout:
            images = cut_out(images, recipe.cutout, rng)
        self.network.train()
        enabled = recipe.precision == "bf16"
        with torch.autocast(kind, torch.bfloat16, enabled=enabled):
            logits, auxiliary = self._forward(images, rng)
        smooth = recipe.label_smoothing
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=smooth)
        if auxiliary is not None:
            second = F.cross_entropy(auxiliary.float(), labels, label_smoothing=smooth)
            loss = loss + recipe.auxiliary * second
        return loss

    def stepped(self) -> None:
        """Note that a step is done, with the weights that it left."""
        self.done += 1
        self._rng = None
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)

    @property
    def best(self) -> Network:
        """The network that is evaluated and kept: the averaged one, if there is one."""
        if self.averaged is None:
            return self.network
        averaged = self.averaged.module
        assert isinstance(averaged, Network)
        return averaged

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        result: Tensor = self.best.eval()(images)
        return result

    def state_dict(self) -> dict[str, Any]:
        """What goes on beside the network's own tensors."""
        parts = {"head": self.head, "averaged": self.averaged}
        return {"done": self.done} | {
            name: None if part is None else part.state_dict() for name, part in parts.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called."""
        self.done = state["done"]
        for part, known in ((self.head, state["head"]), (self.averaged, state["averaged"])):
            if part is not None:
                part.load_state_dict(known)

    def _forward(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        rate = self.recipe.path_dropout * self.done / max(self.steps, 1)
        kept: list[Tensor] = []

        def apply(node: Node, inputs: Sequence[Tensor]) -> Tensor:
            index = self._indices[id(node)]
            if rate and index in self.paths:
                inputs = [
                    drop_path(x, rate, rng) if place in self.paths[index] else x
                    for place, x in enumerate(inputs)
                ]
            value = self.network.apply_node(node, inputs)
            if self.head is not None and index == self.source:
                kept.append(self.head(value))
            return value

        logits = traverse(self.network.graph, images, apply)
        return logits, kept[0] if kept else None


def droppable_paths(graph: Graph) -> dict[int, set[int]]:
    """The inputs of sums that may be left out: those that nothing else reads, as long as another
    input stays. What others read too is a shortcut.

    Returns:
        For each such sum, by the node's index, the places among its inputs.
    """
    readers = [len(item) for item in graph.consumers]
    result = {}
    for index, node in enumerate(graph.nodes):
        if node.op.primitive == "sum" and len(node.inputs) > 1:
            places = {place for place, source in enumerate(node.inputs) if readers[source] == 1}
            if places:
                result[index] = places
    return result


def drop_path(x: Tensor, rate: float, rng: torch.Generator) -> Tensor:
    """Set a path to zero in a share of the images, and scale the others to the same mean.

    Args:
        x: (B, C, H, W).
        rate: The share, below 1.
        rng: On the CPU.
    """
    keep = torch.rand(len(x), generator=rng) >= rate
    mask = keep.to(x.device, x.dtype).view(-1, *[1] * (x.dim() - 1))
    return x * mask / (1 - rate)


def cut_out(images: Tensor, side: int, rng: torch.Generator) -> Tensor:
    """Set a square of every image to zero, the mean of normalised images; its centre lies anywhere
    in the image.

    Args:
        images: (B, C, H, W), normalised.
        side: In pixels.
        rng: On the CPU.
    """
    masks = []
    for size in images.shape[2:]:
        centre = torch.randint(size, (len(images), 1), generator=rng)
        place = torch.arange(size)[None]
        masks.append((place >= centre - side // 2) & (place < centre - side // 2 + side))
    cut = (masks[0][:, None, :, None] & masks[1][:, None, None, :]).to(images.device)
    return images.masked_fill(cut, 0.0)


def auxiliary_source(graph: Graph) -> int:
    """The node that the auxiliary head reads: the last one of the cell at two thirds of the depth
    that is an image of at least two pixels each way."""
    cells = [node.cell for node in graph.nodes]
    wanted = max(2 * (max(cells) + 1) // 3, 0)
    return max(
        index
        for index, node in enumerate(graph.nodes)
        if node.cell <= wanted and len(node.shape) == 3 and min(node.shape[1:]) >= 2
    )


def auxiliary_head(channels: int, classes: int) -> nn.Module:
    """A classifier of an inner layer (Szegedy et al., CVPR 2015; as in DARTS, for any size)."""
    return nn.Sequential(
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Conv2d(channels, 128, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Conv2d(128, 768, 2, bias=False),
        nn.BatchNorm2d(768),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(768, classes),
    )
