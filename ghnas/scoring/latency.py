"""How long a network takes: measured, and predicted from a table of operations.

The table gives every kind of operation a time for each call, each floating-point operation and each
number that is read or written. It is fitted on some measured networks of a space. Cai et al.,
"ProxylessNAS" (ICLR 2019, arXiv 1812.00332, section 3.3) sum measured times of operations; here
whole networks are measured, so that nothing has to be taken apart.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from scipy.optimize import nnls
from sklearn.model_selection import KFold

from ghnas.architectures.graph import Graph, Specification
from ghnas.architectures.network import Network
from ghnas.architectures.ops import Conv
from ghnas.spaces import Space
from ghnas.spaces.files import explain
from ghnas.utils.devices import pick_device
from ghnas.utils.errors import UserError
from ghnas.utils.files import read_json, write_atomically
from ghnas.utils.statistics import spearman

NETWORKS = 48
"""Networks that a table is fitted on."""
FOLDS = 6
ROUNDS = 5
"""Every network is measured so often, after all others, and the quietest round counts: the speed of
a machine drifts, and other programs take their share of its caches."""
_WARM, _RUNS, _SECONDS = 2, 3, 0.01
"""Runs of a round before it counts, and how many, and how much time, count at least."""
_CONSTANT = "network"
Report = Callable[[int, int], None]
_Count = Annotated[int, Field(strict=True, ge=1, le=2**20)]
_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, config={"extra": "forbid"})
class Setting:
    """How latencies are measured.

    On one thread of a CPU the clock is the processor's, which other programs do not disturb much;
    otherwise it is the one on the wall.

    Args:
        batch: Images at a time.
        threads: Of PyTorch, on a CPU.
        device: `cpu`, `cuda` or `cuda:N`.
    """

    batch: _Count = 1
    threads: _Count = 1
    device: str = "cpu"

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' * (self.threads > 1)}"
        place = f"{self.device}{threads}" if self.device == "cpu" else self.device
        clock = "processor time" if self.processor_time else "wall time"
        return f"batch {self.batch}, {place}, {clock}"

    @property
    def processor_time(self) -> bool:
        """Whether the clock is the processor's."""
        return self.device == "cpu" and self.threads == 1


@dataclass(frozen=True, config={"extra": "forbid"})
class LatencyTable:
    """What operations take; `latency_table` makes one.

    Args:
        setting: How its networks were measured.
        networks: Their number.
        error: Median relative error of networks that a fit had not seen (cross-validated).
        agreement: Spearman correlation of the same.
        seconds: For each kind of operation and quantity, such as `conv.flops`, the time of one.
    """

    setting: Setting
    networks: _Count
    error: _Time
    agreement: float
    seconds: dict[str, _Time]

    def predict(self, graph: Graph) -> float:
        """Seconds that a network takes for a batch."""
        known = self.seconds
        return sum(known.get(key, 0.0) * count for key, count in _quantities(graph).items())

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def describe(self) -> str:
        """In a sentence."""
        return (
            f"latency: {self.networks} networks measured ({self.setting}); the table of operations "
            f"that is fitted to them predicts others with a median error of {100 * self.error:.1f} "
            f"%, Spearman {self.agreement:.2f} (cross-validated)"
        )


_TABLE = TypeAdapter(LatencyTable)


def read_table(content: Any, source: str) -> LatencyTable:
    """The inverse of `LatencyTable.as_dict`.

    Raises:
        UserError: If it is none, naming the source.
    """
    try:
        return _TABLE.validate_python(content)
    except ValidationError as error:
        raise UserError(f"{source}: no table of latencies ({explain(error)})") from error


def latency_table(
    space: Space,
    *,
    batch: int = 1,
    threads: int = 1,
    device: str = "auto",
    networks: int = NETWORKS,
    seed: int = 0,
    path: str | PathLike[str] | None = None,
    report: Report | None = None,
) -> LatencyTable:
    """Measure random networks of a space, and fit a table that predicts how long others take.

    Networks are run by PyTorch, in evaluation mode, and Kaiming initialised: `Network` without
    compilation or export, which may be faster.

    Args:
        space: For the images and classes of the search.
        batch: Images at a time.
        threads: Of PyTorch, on a CPU.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        networks: How many to measure, 12 or more.
        seed: Decides which.
        path: A JSON file that keeps the table; where there is one it is read instead.
        report: Called with the measurements done and their number.

    Returns:
        The table, with the error of its predictions.

    Raises:
        UserError: If a number is out of range, there is no such device, or the file is no table or
            one for another setting.

    Example:
        >>> import ghnas
        >>> space = ghnas.load_space("nasbench201").for_images((3, 16, 16), classes=10)
        >>> table = ghnas.latency_table(space, networks=12)
        >>> small, large = (space.parse(
        ...     f"|{name}~0|+|{name}~0|none~1|+|{name}~0|none~1|none~2|"
        ... ) for name in ("skip_connect", "nor_conv_3x3"))
        >>> table.predict(small.graph) < table.predict(large.graph)
        True
    """
    if networks < 2 * FOLDS:
        raise UserError(f"a table of latencies needs {2 * FOLDS} networks, not {networks}")
    if batch < 1 or threads < 1:
        raise UserError("latencies need a batch of 1 or more images, and 1 thread or more")
    setting = Setting(batch, threads, str(pick_device(device)))
    if path is not None and Path(path).exists():
        return _kept(Path(path), setting)
    rng = random.Random(f"latency:{seed}")
    graphs = [space.sample(rng).graph for _ in range(networks)]
    table = fit_table(graphs, measure(graphs, setting, report), setting)
    if path is not None:
        write_atomically(Path(path), json.dumps(table.as_dict(), indent=1) + "\n")
    return table


def _kept(path: Path, setting: Setting) -> LatencyTable:
    try:
        table = read_table(read_json(path), str(path))
    except ValueError as error:
        raise UserError(f"{path}: damaged, it is not JSON ({error})") from error
    if table.setting != setting:
        raise UserError(f"{path} holds latencies for {table.setting}, not for {setting}")
    return table


def fit_table(graphs: Sequence[Graph], seconds: Sequence[float], setting: Setting) -> LatencyTable:
    """A table from measured networks: least squares of relative errors, no time below zero.

    Args:
        graphs: The networks.
        seconds: What each takes for a batch.
        setting: How they were measured.
    """
    found = [_quantities(graph) for graph in graphs]
    keys = sorted(set().union(*found))
    inputs = np.array([[quantities[key] for key in keys] for quantities in found], dtype=float)
    observed, predicted = np.array(seconds), np.zeros(len(seconds))
    for known, held in KFold(FOLDS, shuffle=True, random_state=0).split(inputs):
        predicted[held] = inputs[held] @ _fit(inputs[known], observed[known])
    return LatencyTable(
        setting,
        len(graphs),
        error=float(np.median(np.abs(predicted / observed - 1))),
        agreement=spearman(predicted, observed),
        seconds=dict(zip(keys, _fit(inputs, observed).tolist(), strict=True)),
    )


def _fit(inputs: np.ndarray, observed: np.ndarray) -> np.ndarray:
    scale = np.maximum(inputs.max(axis=0), 1.0)
    weights, _ = nnls(inputs / scale / observed[:, None], np.ones(len(observed)))
    result: np.ndarray = weights / scale
    return result


def _quantities(graph: Graph) -> Mapping[str, float]:
    """Calls, floating-point operations and numbers moved, for each kind of operation."""
    result: Counter[str] = Counter({_CONSTANT: 1})
    for node in graph.nodes:
        kind, spec = _kind(node.spec), node.spec
        result[f"{kind}.calls"] += 1
        result[f"{kind}.flops"] += spec.flops
        result[f"{kind}.moved"] += sum(map(math.prod, (*spec.input_shapes, spec.output_shape)))
    return result


def _kind(spec: Specification) -> str:
    op = spec.op
    if not isinstance(op, Conv):
        return str(getattr(op, "kind", type(op).__name__))
    return "depthwise" if op.depthwise else "pointwise" if op.kernel == 1 else "conv"


# ------------------------------------------------------------------ measuring


def measure(graphs: Sequence[Graph], setting: Setting, report: Report | None = None) -> list[float]:
    """Seconds that each network takes for a batch, warm: the least of the medians of all rounds.

    Args:
        graphs: The networks.
        setting: How.
        report: Called with the measurements done and their number.
    """
    times: list[list[float]] = [[] for _ in graphs]
    with _threads(setting.threads), torch.inference_mode():
        for number in range(ROUNDS * len(graphs)):
            place = number % len(graphs)
            times[place].append(_measure_one(graphs[place], setting))
            if report is not None:
                report(number + 1, ROUNDS * len(graphs))
    return [min(item) for item in times]


def _measure_one(graph: Graph, setting: Setting) -> float:
    """The median of a round."""
    network = Network(graph).eval().to(setting.device)
    images = torch.randn(setting.batch, *graph.nodes[0].shape, device=setting.device)
    clock = _clock(setting)
    for _ in range(_WARM):
        network(images)
    found: list[float] = []
    while len(found) < _RUNS or sum(found) < _SECONDS:
        began = clock()
        network(images)
        found.append(clock() - began)
    return float(np.median(found))


def _clock(setting: Setting) -> Callable[[], float]:
    if setting.processor_time:
        return time.thread_time
    if setting.device == "cpu":
        return time.perf_counter

    def finished() -> float:
        torch.cuda.synchronize(setting.device)
        return time.perf_counter()

    return finished


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
