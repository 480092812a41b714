"""The composite score: three components that need no training and err in different ways.

The loss with predicted weights tells how well an architecture fits the images, but favours what a
hypernetwork finds easy to predict; the separability of the rectified features tells whether
images stay apart on the way through the network; size tells what a long training can use. Each is
measured in the spread that it has among random architectures of the space, and the three are
added, or those of them that the space's file names. `results/ranking-nasbench201` shows what that
is worth.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.graph import Graph, Shape
from ghnas.executors.base import Executor, Parameters
from ghnas.executors.stacked import take
from ghnas.scoring.evaluation import Batch, Components, Score
from ghnas.scoring.proxies import LOWEST, reaches_output
from ghnas.scoring.proxies.separation import code_separability
from ghnas.scoring.scorer import Scorer
from ghnas.spaces import Space
from ghnas.spaces.files import COMPONENTS

FLOOR = -1000.0
"""What stands for minus infinity in a study, which takes no infinite values."""


def measure(
    executor: Executor,
    graphs: Sequence[Graph],
    weights: Sequence[Parameters],
    batch: Batch,
    scores: Sequence[Score],
) -> list[Components]:
    """The components of architectures that were scored.

    Args:
        executor: What they were scored with.
        graphs: The architectures.
        weights: Their predicted weights.
        batch: Images (B, C, H, W) and labels (B,) that separability is measured on.
        scores: Their zero-shot scores.

    Returns:
        The components; all are `LOWEST` where the image does not reach the output.
    """
    kept = [
        i
        for i, (graph, score) in enumerate(zip(graphs, scores, strict=True))
        if reaches_output(graph) and math.isfinite(score.loss)
    ]
    own = take(weights, kept)
    separability = code_separability(executor, [graphs[i] for i in kept], own, batch[0])
    found = [Components(LOWEST, LOWEST, LOWEST)] * len(graphs)
    for i, value in zip(kept, separability, strict=True):
        found[i] = Components(-scores[i].loss, value, math.log(graphs[i].parameter_count))
    return found


@dataclass(frozen=True)
class Scale:
    """Median and interquartile range of a component among random architectures."""

    middle: float
    spread: float


@dataclass(frozen=True)
class Reference:
    """The scales of all components: what a space's random architectures are like.

    Args:
        scales: By the name of each component that counts. One that does not vary adds nothing.
    """

    scales: Mapping[str, Scale]

    @staticmethod
    def of(found: Sequence[Components], names: Sequence[str] = COMPONENTS) -> Reference:
        """The scales among architectures; those that are `LOWEST` do not count.

        Args:
            found: Of random architectures of the space, a hundred or more.
            names: The components that count.

        Raises:
            ValueError: If the image reaches the output of none.
        """
        scales = {}
        for name in names:
            values = np.array([getattr(item, name) for item in found])
            values = values[np.isfinite(values)]
            if not len(values):
                raise ValueError("no architecture connects image and output")
            low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
            scales[name] = Scale(float(middle), float(high - low))
        return Reference(scales)

    def score(self, components: Components) -> float:
        """How good an architecture looks: the sum of its components in units of their spread.

        Unlike a vote of ranks it does not depend on what else is scored.

        Args:
            components: Of the architecture.

        Returns:
            About 0 for a middling architecture of the space; higher is better; minus infinity
            where a component is.
        """
        values = asdict(components)
        if not all(math.isfinite(values[name]) for name in self.scales):
            return LOWEST
        total = 0.0
        for name, scale in self.scales.items():
            if scale.spread > 0:
                total += (values[name] - scale.middle) / scale.spread
        return total


REFERENCE = 200
"""Random architectures that tell what the components are like in a space."""
AT_A_TIME = 64
"""Of these between two reports."""


def reference_candidates(space: Space, count: int = REFERENCE, seed: int = 0) -> list[Architecture]:
    """Random architectures to compare with; a few may be equal."""
    rng = random.Random(f"reference:{seed}")
    return [space.sample(rng) for _ in range(count)]


def reference_for(
    space: Space,
    scorer: Scorer,
    image_shape: Shape,
    report: Callable[[int, int], None] = lambda done, total: None,
    count: int = REFERENCE,
    seed: int = 0,
) -> Reference:
    """The scales of a space, from random architectures with predicted weights.

    Args:
        space: With the skeleton that is scored.
        scorer: With `measure`; the one that candidates are scored with.
        image_shape: (C, H, W).
        report: Called with the architectures scored and their number.
        count: Architectures to draw; takes as long as scoring so many candidates.
        seed: Of the draw.
    """
    classes = scorer.ghn.config.num_classes
    candidates = reference_candidates(space, count, seed)
    graphs = [candidate.for_images(image_shape, classes).graph for candidate in candidates]
    found: list[Components] = []
    for start in range(0, len(graphs), AT_A_TIME):
        report(start, len(graphs))
        scores = scorer.score(graphs[start : start + AT_A_TIME])
        found += [score.components for score in scores if score and score.components]
    report(len(graphs), len(graphs))
    return Reference.of(found, space.composite)


def recorded(reference: Reference, components: Components) -> float:
    """The composite score as a search records it."""
    return max(reference.score(components), FLOOR)
