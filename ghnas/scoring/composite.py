"""A score made of three that need no training and err in different ways.

The loss with predicted weights tells how well an architecture fits the images, but favours what a
hypernetwork finds easy to predict; the separability of the rectified features tells whether
images stay apart on the way through the network; size tells what a long training can use. Each is
measured in the spread that it has among random architectures of the space, and the three are
added. `results/ranking-nasbench201` shows what that is worth.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.graph import Graph, Shape
from ghnas.executors.base import Parameters
from ghnas.scoring.evaluation import Batch, Evidence, Score, evaluate_one
from ghnas.scoring.proxies import LOWEST, reaches_output
from ghnas.scoring.proxies.separation import code_separability
from ghnas.scoring.scorer import POPULATION, Scorer
from ghnas.spaces import Space

FLOOR = -1000.0
"""What stands for minus infinity in a study, which takes no infinite values."""

PARTS = ("fit", "separability", "size")


def gather(
    graph: Graph, parameters: Parameters, batches: Sequence[Batch]
) -> tuple[Evidence, Score]:
    """The evidence for one architecture, and its zero-shot score.

    Args:
        graph: The architecture.
        parameters: Its predicted weights.
        batches: Images (B, C, H, W) and labels (B,); separability is measured on the first.

    Returns:
        The evidence; all of it is `LOWEST` where the image does not reach the output.
    """
    score = evaluate_one(graph, parameters, batches)
    return measure(graph, parameters, batches[0], score), score


def measure(graph: Graph, parameters: Parameters, batch: Batch, score: Score) -> Evidence:
    """The evidence for an architecture that was scored; see `gather`."""
    if not reaches_output(graph) or not math.isfinite(score.loss):
        return Evidence(LOWEST, LOWEST, LOWEST)
    separability = code_separability(graph, parameters, batch[0])
    return Evidence(-score.loss, separability, math.log(graph.parameter_count))


@dataclass(frozen=True)
class Scale:
    """Median and interquartile range of a part among random architectures."""

    middle: float
    spread: float


@dataclass(frozen=True)
class Reference:
    """The scales of all parts: what a space's random architectures are like.

    Args:
        scales: By the part's name. A part that does not vary counts for nothing.
    """

    scales: Mapping[str, Scale]

    @staticmethod
    def of(evidence: Sequence[Evidence]) -> Reference:
        """The scales among architectures; those that are `LOWEST` do not count.

        Args:
            evidence: Of random architectures of the space, a hundred or more.

        Raises:
            ValueError: If the image reaches the output of none.
        """
        scales = {}
        for part in PARTS:
            values = np.array([getattr(item, part) for item in evidence])
            values = values[np.isfinite(values)]
            if not len(values):
                raise ValueError("no architecture connects image and output")
            low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
            scales[part] = Scale(float(middle), float(high - low))
        return Reference(scales)

    def score(self, evidence: Evidence, parts: Sequence[str] = PARTS) -> float:
        """How good an architecture looks: the sum of its parts in units of their spread.

        Unlike a vote of ranks it does not depend on what else is scored.

        Args:
            evidence: Of the architecture.
            parts: Those to add.

        Returns:
            About 0 for a middling architecture of the space; higher is better; minus infinity
            where a part is.
        """
        values = asdict(evidence)
        if not all(math.isfinite(values[part]) for part in parts):
            return LOWEST
        total = 0.0
        for part in parts:
            scale = self.scales[part]
            if scale.spread > 0:
                total += (values[part] - scale.middle) / scale.spread
        return total


REFERENCE = 200
"""Random architectures that tell what the parts are like in a space."""


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
    found: list[Evidence] = []
    for start in range(0, len(graphs), POPULATION):
        report(start, len(graphs))
        scores = scorer.score(graphs[start : start + POPULATION])
        found += [score.evidence for score in scores if score and score.evidence]
    report(len(graphs), len(graphs))
    return Reference.of(found)


def recorded(reference: Reference, evidence: Evidence) -> float:
    """The consensus as a search records it."""
    return max(reference.score(evidence), FLOOR)
