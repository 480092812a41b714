"""Files of many architectures: generated once, read in random batches without loading them.

A folder holds `manifest.json` and shards `00000.npy`, `00001.npy`, ... Each shard is a NumPy
array with one record for each architecture: which option it has of each of the space's choices,
and its nodes, edges, virtual edges, longest path and parameters. A shard's content depends on
the space, the seed and its number alone, not on who made it.
"""

from __future__ import annotations

import gc
import io
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.graph import Graph, Shape
from ghnas.architectures.paths import CUTOFF, levels, shortest_paths
from ghnas.spaces import Space, parse_space
from ghnas.spaces.base import ATTEMPTS
from ghnas.spaces.deepnets import DeepNetsSpace
from ghnas.utils.errors import UserError
from ghnas.utils.files import read_json, remove_abandoned, write_atomically
from ghnas.utils.processes import Workers

FORMAT = 1
SHARD = 10_000
CHUNK = 256
"""Architectures that are made together."""
IMAGE, CLASSES = (3, 32, 32), 10
"""What nodes and parameters are counted for."""

Count = Annotated[int, Field(strict=True, ge=1, le=10**18)]


class ArchitectureManifest(BaseModel):
    """What a folder of architectures was made from."""

    format: int
    space: str
    """The space file's text."""
    skeleton: dict[str, Any]
    seed: int
    count: Count
    shard: Count


def record_type(space: Space) -> np.dtype[np.void]:
    """The layout of one architecture's record."""
    return np.dtype(
        [
            ("choices", np.uint8, (len(space.choices),)),
            ("depth", np.uint16),
            ("nodes", np.uint16),
            ("edges", np.uint16),
            ("virtual_edges", np.uint32),
            ("parameters", np.uint32),
        ]
    )


def generate(
    folder: Path,
    space: Space,
    text: str,
    count: int,
    seed: int,
    workers: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Generate architectures; what an interrupted call finished is kept.

    Args:
        folder: Where to write.
        space: The space with its skeleton.
        text: Its file's text, kept in the manifest.
        count: How many architectures.
        seed: Equal seeds give equal files.
        workers: Processes.
        report: Called with (done, total) after each shard.

    Raises:
        UserError: If the folder holds other architectures.
    """
    skeleton = dict(space.skeleton)
    manifest = ArchitectureManifest(
        format=FORMAT, space=text, skeleton=skeleton, seed=seed, count=count, shard=SHARD
    )
    _claim(folder, manifest)
    sizes = [min(SHARD, count - start) for start in range(0, count, SHARD)]
    missing = [number for number in range(len(sizes)) if not shard_path(folder, number).exists()]
    done = sum(sizes) - sum(sizes[number] for number in missing)
    report(done, count)
    tasks = [(folder, seed, number, sizes[number]) for number in missing]
    try:
        with Workers(min(workers, len(tasks)), _shard_writer, text, skeleton) as pool:
            for written in pool.as_completed(tasks):
                done += written
                report(done, count)
    finally:  # some may have been written when the processes were ended
        remove_abandoned(*(shard_path(folder, number) for number in missing))


def _claim(folder: Path, manifest: ArchitectureManifest) -> None:
    path = folder / "manifest.json"
    if path.exists():
        known, wanted = read_manifest(folder).model_dump(), manifest.model_dump()
        if differs := [key for key in wanted if known[key] != wanted[key]]:
            raise UserError(
                f"{folder} holds architectures with another {differs[0]}: choose another folder, "
                "or delete this one"
            )
    else:
        write_atomically(path, manifest.model_dump_json(indent=2))


def read_manifest(folder: Path) -> ArchitectureManifest:
    """What a folder was made from.

    Raises:
        UserError: If there is none, it is damaged or from a newer version.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise UserError(f"no architectures in {folder}: make some with `ghnas generate`")
    try:
        content = read_json(path)
        if content.get("format", 0) > FORMAT:
            raise UserError(f"{path} is from a newer version of ghnas: update ghnas")
        return ArchitectureManifest.model_validate(content)
    except (ValidationError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"{number:05d}.npy"


def _shard_writer(text: str, skeleton: dict[str, Any]) -> Callable[..., int]:
    return partial(_write_shard, parse_space(text, "space").with_skeleton(**skeleton))


def _write_shard(space: Space, folder: Path, seed: int, number: int, count: int) -> int:
    """Make a shard; returns its number of architectures."""
    # splits of one seed share nothing
    rng = random.Random(f"{seed}:{space.skeleton.get('split', '')}:{number}")
    records = make_records(space, rng, count)
    stream = io.BytesIO()  # into a file, NumPy does not say that its last page found no room
    np.save(stream, records)
    write_atomically(shard_path(folder, number), stream.getvalue())
    return count


def make_records(space: Space, rng: random.Random, count: int) -> np.ndarray:
    """Draw architectures: from choices to graphs with virtual edges, and what they count.

    Returns:
        (count,) of `record_type(space)`.
    """
    records = np.zeros(count, dtype=record_type(space))
    positions = [
        (item.name, {option: i for i, option in enumerate(item.options)}) for item in space.choices
    ]
    for start in range(0, count, CHUNK):
        end = min(start + CHUNK, count)
        with collection_paused():
            chunk = [_draw(space, rng) for _ in range(start, end)]
            graphs = [graph for _, graph in chunk]
            views = [(len(graph.primitives.nodes), graph.primitives.edges) for graph in graphs]
            part = records[start:end]
            part["choices"] = [
                [codes[candidate.choices[name]] for name, codes in positions]
                for candidate, _ in chunk
            ]
            part["depth"] = [levels(*view)[0][-1] for view in views]
            part["nodes"] = [nodes for nodes, _ in views]
            part["edges"] = [len(edges) for _, edges in views]
            part["virtual_edges"] = list(map(np.count_nonzero, shortest_paths(views, CUTOFF)))
            part["virtual_edges"] -= part["edges"]
            part["parameters"] = [graph.parameter_count for graph in graphs]
            del chunk, graphs
    return records


def _draw(space: Space, rng: random.Random) -> tuple[Architecture, Graph]:
    for _ in range(ATTEMPTS):
        candidate = space.sample(rng)
        graph = candidate.for_images(IMAGE, CLASSES).graph
        if not isinstance(space, DeepNetsSpace) or space.is_small_enough(
            dict(candidate.choices), graph
        ):
            return candidate, graph
    raise UserError(
        f"space {space.name!r}: none of {ATTEMPTS:,} random architectures is within max_parameters "
        "of its split; raise it or take fewer channels"
    )


@contextmanager
def collection_paused() -> Iterator[None]:
    """Python's search for cycles would read every node again and again; graphs have none."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class Architectures(Sequence[Architecture]):
    """The architectures of a folder, read from its files as they are asked for.

    Args:
        folder: Written by `generate`.

    Raises:
        UserError: If the folder is not complete or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        space = parse_space(self.manifest.space, str(folder / "manifest.json"))
        self.space = space.with_skeleton(**self.manifest.skeleton)

    @cached_property
    def shards(self) -> list[np.ndarray]:
        """The records, memory-mapped."""
        found, layout = [], record_type(self.space)
        for start in range(0, self.manifest.count, self.manifest.shard):
            path = shard_path(self.folder, start // self.manifest.shard)
            try:
                shard = np.load(path, mmap_mode="r", allow_pickle=False)
            except FileNotFoundError as error:
                raise UserError(
                    f"{self.folder} is not complete ({path.name} is missing): run `ghnas "
                    "generate` again to go on"
                ) from error
            except Exception as error:  # NumPy reads headers with Python's own parser
                raise UserError(f"{path} is damaged: delete it and generate again") from error
            if shard.dtype != layout:
                raise UserError(f"{path} is not of this space: delete it and generate again")
            if shard.shape != (min(self.manifest.shard, self.manifest.count - start),):
                raise UserError(f"{path} is damaged: delete it and generate again")
            found.append(shard)
        return found

    def __len__(self) -> int:
        return self.manifest.count

    def __getitem__(self, index: int) -> Architecture:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        record = self.shards[index // self.manifest.shard][index % self.manifest.shard]
        codes = list(zip(self.space.choices, record["choices"].tolist(), strict=True))
        if any(code >= len(item.options) for item, code in codes):
            path = shard_path(self.folder, index // self.manifest.shard)
            raise UserError(f"{path} is damaged: delete it and generate again")
        return self.space.architecture({item.name: item.options[code] for item, code in codes})

    def __getstate__(self) -> dict[str, Any]:
        """Without the mapped files, which another process opens for itself."""
        return {key: value for key, value in self.__dict__.items() if key != "shards"}

    def draw(self, rng: random.Random) -> Architecture:
        """One of the architectures, each as likely as any other."""
        return self[rng.randrange(len(self))]

    def column(self, name: str) -> np.ndarray:
        """A number of every architecture, such as `nodes` or `parameters`."""
        return np.concatenate([shard[name] for shard in self.shards])

    def graphs(self, indices: Sequence[int], image_shape: Shape, classes: int) -> list[Graph]:
        """Some of the architectures."""
        return [self[index].for_images(image_shape, classes).graph for index in indices]
