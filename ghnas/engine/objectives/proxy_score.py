"""The objective that needs no hypernetwork: a training-free proxy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.graph import Graph
from ghnas.data import ImageData, random_batches
from ghnas.engine.objectives.base import Outcome, Report, batches_ahead, in_places
from ghnas.engine.objectives.images import SIZE_OBJECTIVES, ImageObjective, check_names
from ghnas.engine.trials import QUALITIES, Direction, Trial
from ghnas.scoring.evaluation import Batch
from ghnas.scoring.latency import LatencyTable
from ghnas.scoring.proxies import PROXIES, score_graph
from ghnas.spaces import Space
from ghnas.utils.errors import UserError
from ghnas.utils.processes import Pool, Workers

DEFAULT_PROXY = "naswot"
PROXY_IMAGES = 64
"""Training images of the batch."""
PROXY_SCORES: dict[str, Direction] = {
    **{name: "maximize" for name in PROXIES if name not in SIZE_OBJECTIVES},
    **SIZE_OBJECTIVES,
}
"""What a search without a hypernetwork can optimise."""


class ProxyScore(ImageObjective):
    """Scores candidates by a training-free proxy: untrained, on one batch of training images.

    Every network is initialised with the same seed (He et al., 2015), so that a score depends on
    the architecture alone. Proxies are computed on the CPU.

    Source: for each proxy see `ghnas.scoring.proxies`; naswot is Mellor et al., ICML 2021.

    Args:
        data: See `ghnas.load_data`.
        objectives: `naswot`, `synflow`, `jacov`, `snip`, `grasp`, `grad-norm`, `fisher` or `zen`,
            also with `params`, `flops` and `latency`.
        images: Training images of the batch.
        seed: Of the initialisation and of the choice of images.
        device: Where a short list is trained: `auto`, `cpu`, `cuda` or `cuda:N`.
        workers: Processes; default: one for each core. Scores do not depend on it.
        latency: For the objective `latency`, or a limit on it; see `ghnas.latency_table`.
        pool: Workers in place of this machine's, such as `ghnas.RayPool`.

    Raises:
        UserError: If an objective is unknown, or none of them is a proxy.

    Example:
        >>> import ghnas
        >>> objective = ghnas.ProxyScore(ghnas.load_data("embedded"), workers=1)
        >>> study = ghnas.search(ghnas.load_space("mobile"), objective, budget=4)
        >>> objective(study.best(1)[0]) == study.best_value
        True
    """

    def __init__(
        self,
        data: ImageData,
        *,
        objectives: Sequence[str] = (DEFAULT_PROXY,),
        images: int = PROXY_IMAGES,
        seed: int = 0,
        device: str | torch.device = "auto",
        workers: int | None = None,
        latency: LatencyTable | None = None,
        pool: Pool | None = None,
    ) -> None:
        super().__init__(
            data, check_proxies(objectives), PROXY_SCORES, device, workers, latency, pool
        )
        self.proxies = [name for name in self.names if name not in SIZE_OBJECTIVES]
        self.images, self.seed = min(images, len(data.train)), seed
        self._workers: Workers[list[float]] | None = None

    def __call__(self, architecture: Architecture) -> float:
        """The first proxy of one architecture."""
        (found,) = self._started().map([(self._graph(architecture),)])
        return found[0]

    def describe(self) -> dict[str, Any]:
        settings = {"proxy": ",".join(self.proxies), "images": self.images, "proxy_seed": self.seed}
        return super().describe() | settings

    def prepare(self, space: Space, report: Report) -> None:
        """Start the processes, before there are threads."""
        self._started()

    def evaluate(
        self,
        candidates: Sequence[Architecture],
        wanted: Sequence[int],
        earlier: Sequence[Trial],
        share: float,
    ) -> list[Outcome | None]:
        scores = self._started().map((candidates[i].graph,) for i in wanted)
        pairs = zip(wanted, scores, strict=False)  # fewer after `cancel`
        found = (self._outcome(candidates[i], score) for i, score in pairs)
        return in_places(found, wanted, len(candidates))

    def ahead(self, batch_size: int) -> int:
        return batches_ahead(self.pool, 1, batch_size)

    def cancel(self) -> None:
        if self._workers is not None:
            self._workers.cancel()

    def close(self) -> None:
        """End the processes; they are started again when they are needed."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _started(self) -> Workers[list[float]]:
        if self._workers is None:
            data = self.data
            batch = next(random_batches(data.train, self.images, seed=self.seed, device="cpu",
                                        mean=data.mean, std=data.std))  # fmt: skip
            self._workers = self.pool.start(
                partial, _score, self.proxies, batch, self.seed, gradients=True
            )
        return self._workers

    def _graph(self, architecture: Architecture) -> Graph:
        return architecture.for_images(self.data.image_shape, self.data.num_classes).graph

    def _outcome(self, architecture: Architecture, scores: Sequence[float]) -> Outcome:
        values = dict(zip(self.proxies, scores, strict=True))
        if wrong := [name for name, value in values.items() if not math.isfinite(value)]:
            return Outcome(error=f"{wrong[0]} of the untrained network is not a finite number")
        values |= self._sizes(architecture)
        return Outcome(tuple(values[name] for name in self.names))


def _score(proxies: Sequence[str], batch: Batch, seed: int, graph: Graph) -> list[float]:
    return [score_graph(PROXIES[name], graph, *batch, seed) for name in proxies]


def check_proxies(names: Sequence[str]) -> tuple[str, ...]:
    """The objectives of a search without a hypernetwork, if they are known, different, and one is
    a proxy.

    Raises:
        UserError: Naming the objective that is wrong, and the known ones.
    """
    if needing := [name for name in names if name in QUALITIES]:
        raise UserError(
            f"objective {needing[0]!r} needs a hypernetwork (`ghnas train` trains one, --ghn takes "
            f"it); without one known are {', '.join(PROXY_SCORES)}"
        )
    return check_names(names, PROXY_SCORES, "a proxy", DEFAULT_PROXY)
