"""An architecture: what was chosen in a search space, and the graph that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from ghnas.architectures.graph import Graph, Shape

if TYPE_CHECKING:
    from ghnas.architectures.network import Network

Value = str | int
Choices = dict[str, Value]
"""A value for every choice of a search space."""


class Notation(Protocol):
    """What an architecture asks of its search space (`ghnas.spaces.base.Space`)."""

    name: str

    def build(self, choices: Choices, image_shape: Shape, classes: int) -> Graph:
        """The graph for images (C, H, W)."""

    def format(self, choices: Choices) -> str:
        """The choices in the space's notation."""


@dataclass(frozen=True)
class Architecture:
    """A network of a search space.

    Two architectures are equal if they were chosen alike, for the same images and classes, in
    spaces of one name; `hash` is also equal for different choices that make isomorphic graphs.

    Args:
        space: The search space with its skeleton.
        choices: A value for each choice of the space.
        image_shape: (C, H, W) of the images that it takes.
        classes: Number of logits.
        values: The objectives' values that a search found, empty elsewhere.

    Example:
        >>> import ghnas
        >>> architecture = ghnas.load_space("mobile").sample(seed=0)
        >>> architecture.graph.nodes[-1].shape
        (10,)
    """

    space: Notation = field(compare=False, repr=False)
    choices: Mapping[str, Value]
    image_shape: Shape
    classes: int
    values: tuple[float, ...] = field(default=(), compare=False)

    def __hash__(self) -> int:
        return hash((tuple(self.choices.items()), self.image_shape, self.classes))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Architecture):
            return NotImplemented
        return (
            self.space.name == other.space.name
            and dict(self.choices) == dict(other.choices)
            and self.image_shape == other.image_shape
            and self.classes == other.classes
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without the graph, which is twenty times the rest: a process that needs it builds it."""
        return {name: value for name, value in vars(self).items() if name != "graph"}

    def __str__(self) -> str:
        """The notation of the space, such as a DARTS genotype."""
        return self.space.format(dict(self.choices))

    @cached_property
    def graph(self) -> Graph:
        """The computation graph.

        Raises:
            UserError: If the images are too small for the skeleton.
        """
        return self.space.build(dict(self.choices), self.image_shape, self.classes)

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        return self.graph.parameter_count

    @property
    def flops(self) -> int:
        """Multiply-adds x 2, for one image."""
        return self.graph.flops

    @cached_property
    def hash(self) -> str:
        """Canonical hash of the graph: equal for isomorphic architectures."""
        return self.graph.hash

    def for_images(self, image_shape: Shape, classes: int) -> Architecture:
        """The same choices for other images (C, H, W) and another number of classes."""
        if (tuple(image_shape), classes) == (self.image_shape, self.classes):
            return self
        return replace(self, image_shape=tuple(image_shape), classes=classes)

    def without_graph(self) -> Architecture:
        """A copy that has not built its graph yet, so that thousands can be kept."""
        return replace(self)

    def build(self, seed: int | None = None) -> Network:
        """The network as a `torch.nn.Module`, with Kaiming initialisation.

        Args:
            seed: Equal seeds give equal weights; None draws them from torch's own generator.
        """
        from ghnas.architectures.network import Network, initialised  # torch takes seconds

        return Network(self.graph) if seed is None else initialised(self.graph, seed)
