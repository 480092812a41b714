"""Zero-shot scores: predict the weights of many architectures, then evaluate each."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.graph import Graph
from ghnas.architectures.tracing.module_graph import ModuleGraph
from ghnas.data import ImageData, evaluation_batches
from ghnas.executors.base import Executor
from ghnas.executors.fused import FusedExecutor
from ghnas.executors.grouped import GroupedExecutor
from ghnas.executors.module import ModuleExecutor
from ghnas.ghn.model import GHN
from ghnas.scoring.chunks import CHUNK, Chunks
from ghnas.scoring.evaluation import SCORE_BATCH, Batch, Measure, Score
from ghnas.scoring.populations import Populations
from ghnas.scoring.racing import Race
from ghnas.utils.devices import cores, pick_device
from ghnas.utils.errors import UserError
from ghnas.utils.processes import LocalPool, Pool


def score(
    ghn: GHN,
    architectures: Sequence[Architecture],
    data: ImageData,
    images: int = 512,
    batch_size: int = SCORE_BATCH,
    device: str = "auto",
    workers: int | None = None,
) -> list[Score]:
    """Zero-shot accuracy and loss: those of networks with predicted weights, without training.

    Args:
        ghn: The hypernetwork (Zhang, Ren and Urtasun, ICLR 2019; GHN-2: Knyazev et al., NeurIPS
            2021), moved to the device. Images are normalised with the mean and standard
            deviation that it was trained with, where it knows them, else with the data's.
        architectures: Of any search space; built anew for the data's images and classes.
        data: Scored on its validation images.
        images: How many of them, mixed by class; all if there are not so many.
        batch_size: Images that batch normalisation sees at a time; the last digits of accuracy
            depend on it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; `auto` takes a GPU where there is one.
        workers: Processes on a CPU; default: one for each core. Scores do not depend on it.

    Returns:
        A score for each architecture, in order: `accuracy` in [0, 1] and `loss`, the mean
        cross-entropy in nats; 0 and infinity for a network whose output is not finite.

    Raises:
        UserError: If the hypernetwork predicts for another number of classes, there are no
            images, an architecture cannot take images so small, or the device is not there.

    Example:
        >>> import ghnas
        >>> ghn, data = ghnas.load_ghn("darts-embedded"), ghnas.load_data("embedded")
        >>> architecture = ghnas.load_space("darts").sample(seed=0)
        >>> [score] = ghnas.score(ghn, [architecture], data, images=128)
        >>> (score.images, 0 <= score.accuracy <= 1)
        (128, True)
    """
    if ghn.config.num_classes != data.num_classes:
        raise UserError(
            f"the hypernetwork predicts networks for {ghn.config.num_classes} classes and "
            f"{data.name} has {data.num_classes}: train one on these images with `ghnas train`"
        )
    if images < 1 or batch_size < 1:
        raise UserError(f"images ({images}) and batch_size ({batch_size}) must be 1 or more")
    own = [item.for_images(data.image_shape, data.num_classes) for item in architectures]
    place = pick_device(device)
    batches = evaluation_batches(
        data.validation.take(images),
        batch_size,
        device=place,
        mean=ghn.info.mean or data.mean,
        std=ghn.info.std or data.std,
    )
    graphs = [item.graph for item in own]
    modules = any(isinstance(graph, ModuleGraph) for graph in graphs)
    count = 1 if modules else min(workers or cores(), -(-len(own) // CHUNK))
    executor = ModuleExecutor() if modules else None
    scores = Scorer(ghn, batches, place, count or 1, executor=executor).score(graphs)
    return [found for found in scores if found is not None]


class Scorer:
    """Scores architectures with predicted weights on fixed batches.

    On a CPU chunks of architectures are predicted and evaluated by processes with one torch
    thread each, so that a score does not depend on the number of cores.

    Args:
        ghn: The hypernetwork; moved to the device.
        batches: Images (B, C, H, W) and labels (B,); batch-norm sees a batch at a time.
        device: Where to compute.
        workers: Processes on a CPU; default: one for each core. With 1, none is started.
        measure: Finds components of the composite score; default: they are not looked for.
        executor: Runs the networks; default: the fused one on a CPU, the grouped one on a GPU.
        pool: Whose workers score on a CPU; default: processes of this machine.
    """

    def __init__(
        self,
        ghn: GHN,
        batches: Sequence[Batch],
        device: torch.device,
        workers: int | None = None,
        measure: Measure | None = None,
        executor: Executor | None = None,
        pool: Pool | None = None,
    ) -> None:
        executor = executor or (FusedExecutor() if device.type == "cpu" else GroupedExecutor())
        self.ghn, self.device = ghn.to(device).eval(), device
        count = workers or cores()
        self._way: Chunks | Populations
        if isinstance(executor, GroupedExecutor):
            self._way = Populations(self.ghn, executor, batches, device, count, measure)
        else:
            self._way = Chunks(self.ghn, executor, batches, pool or LocalPool(count), measure)

    def score(
        self,
        graphs: Sequence[Graph],
        wanted: Sequence[int] | None = None,
        race: Race | None = None,
    ) -> list[Score | None]:
        """Score architectures.

        Args:
            graphs: The architectures. What is predicted together depends on this list alone, so
                that a score is the same whatever is wanted.
            wanted: Which of them to evaluate; default: all.
            race: When to stop before the last image; default: never.

        Returns:
            A score for each graph that is wanted, None for the others, and for those that `cancel`
            gave up.

        Raises:
            UserError: If a worker was ended from outside.
        """
        chosen = set(range(len(graphs)) if wanted is None else wanted)
        size = self._way.size(graphs)
        tasks = []
        for start in range(0, len(graphs), size):
            chunk = graphs[start : start + size]
            positions = [i for i in range(len(chunk)) if start + i in chosen]
            tasks.append((chunk, positions, race))
        found = [score for scores in self._way.scores(tasks) for score in scores]
        return found + [None] * (len(graphs) - len(found))

    def cancel(self) -> None:
        """Let a `score` in another thread end soon, with what is done; no other may follow."""
        self._way.cancel()

    def close(self) -> None:
        """End the processes; a `score` that waits for them fails."""
        self._way.close()
