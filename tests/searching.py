"""A cheap search for tests: tiny networks, and a scorer that looks at the graph's hash alone."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ghnas.architectures.graph import Graph
from ghnas.data import DataSet
from ghnas.engine.loop import HASH_LENGTH
from ghnas.engine.manifest import Manifest, new_manifest
from ghnas.engine.runs import Ranked, Run
from ghnas.ghn.checkpoint import GHNInfo, save_ghn
from ghnas.ghn.model import GHN, GHNConfig
from ghnas.scoring.evaluation import Score
from ghnas.scoring.racing import Race
from ghnas.spaces import Space, load_space


def make_manifest(space_name: str = "darts", **changes: Any) -> Manifest:
    """A manifest for a small search; `changes` as in `new_manifest`."""
    skeleton = {"cells": 1, "channels": 2} if space_name == "darts" else {}
    settings: dict[str, Any] = {
        "space": load_space(space_name).with_skeleton(**skeleton),
        "space_name": space_name,
        "data": "embedded",
        "data_fingerprint": "d" * 64,
        "image_shape": (3, 8, 8),
        "classes": ("cat", "dog"),
        "ghn": "ghn.safetensors",
        "ghn_sha256": "a" * 64,
        "budget": 20,
        "batch_size": 8,
        "score_images": 64,
    }
    return new_manifest(**(settings | changes))


def save_untrained(path: Path, space: Space, data: DataSet) -> Path:
    """Write a small hypernetwork with random weights for a space and a data set."""
    config = GHNConfig(num_classes=data.num_classes, hid=8)
    info = GHNInfo(
        config=config,
        space=space.name,
        skeleton=dict(space.skeleton),
        data=data.name,
        fingerprint=data.fingerprint,
        classes=data.classes,
        image_shape=data.image_shape,
        mean=data.mean,
        std=data.std,
    )
    save_ghn(path, GHN(config), info)
    return path


class FakeScorer:
    """Accuracy from the hash of the graph; every score is a line in `log`.

    Args:
        log: A file, for counting across processes.
        seconds: What scoring an architecture takes.
    """

    def __init__(self, log: Path | None = None, seconds: float = 0.0) -> None:
        self.log = log
        self.seconds = seconds
        self.calls: list[tuple[list[str], list[int]]] = []
        """Of each call the hashes of the graphs, and the wanted ones."""

    def score(
        self,
        graphs: Sequence[Graph],
        wanted: Sequence[int] | None = None,
        race: Race | None = None,
    ) -> list[Score | None]:
        hashes = [graph.hash[:HASH_LENGTH] for graph in graphs]
        chosen = list(range(len(graphs)) if wanted is None else wanted)
        self.calls.append((hashes, chosen))
        scores: list[Score | None] = [None] * len(graphs)
        for i in chosen:
            time.sleep(self.seconds)
            if self.log is not None:
                with self.log.open("ab", buffering=0) as file:
                    os.write(file.fileno(), f"{hashes[i]}\n".encode())
            # what was predicted together has a say, as it may in a real scorer
            noise = int(hashes[0][:4], 16) / 16**9
            scores[i] = Score(int(hashes[i][:4], 16) / 16**4 + noise, 1.0)
        return scores

    @property
    def scored(self) -> int:
        """Architectures scored by this object."""
        return sum(len(wanted) for _, wanted in self.calls)


def ranking(run: Run) -> list[tuple[int, int, float, str, bool]]:
    """What two equal searches must agree in, to the last digit."""
    return [_key(item) for item in run.ranked()]


def _key(item: Ranked) -> tuple[int, int, float, str, bool]:
    record = item.record
    return item.rank, record.number, record.accuracy, str(record.architecture), item.front


def entries(run: Run) -> list[tuple[Any, ...]]:
    """All records but for their times."""
    return [
        (r.number, r.architecture, r.accuracy, r.params, r.flops, r.hash, r.duplicate_of)
        for r in run.recorded()
    ]


DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
    "('dil_conv_3x3', 2)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
    "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)
"""The genotype that the second-order DARTS search found."""
