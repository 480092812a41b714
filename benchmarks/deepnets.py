"""A million architectures: how fast, how large, and distributed as the published ones?"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import write_table
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path

from ghnas.ghn.features import GraphFeatures, graph_features
from ghnas.spaces import load_space
from ghnas.spaces.archive import CHUNK, Architectures, collection_paused, make_records

PUBLISHED = {
    "train": ("35-681", "192.3 +- 94.9", "2.3", "14.5 +- 4.8"),
    "val": ("33-549", "190.5 +- 94.4", "2.3", "14.5 +- 5.0"),
    "test": ("43-579", "185.5 +- 91.2", "2.3", "14.3 +- 4.8"),
    "wide": ("48-381", "178.6 +- 75.1", "2.3", "14.7 +- 4.9"),
    "deep": ("74-1017", "391.2 +- 176.7", "2.3", "26.2 +- 9.3"),
    "dense": ("57-993", "355.1 +- 182.3", "2.4", "15.1 +- 4.1"),
    "bnfree": ("33-503", "135.1 +- 78.1", "2.4", "10.0 +- 2.8"),
}
"""Nodes (range, mean), degree and undirected path length, as the authors' notebook prints them
for 1,000 (train), 500 (val, test) and 100 networks."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--sampled", type=int, default=500)
    parser.add_argument("--paths", type=int, default=100)
    options = parser.parse_args()
    space = load_space("deepnets1m")
    make_records(space, random.Random(0), CHUNK)  # works out the templates
    began = time.process_time()
    make_records(space, random.Random(1), 20 * CHUNK)
    one_core = 20 * CHUNK / (time.process_time() - began)
    rows = [
        (
            "drawn, to features with virtual edges, checked and counted, one core",
            f"{one_core:,.0f} a second",
        )
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "train"
        began = time.monotonic()
        command = ("generate", "--split", "train", "--count", str(options.count), "-o", str(folder))
        subprocess.run([sys.executable, "-m", "ghnas", *command], check=True)
        seconds = time.monotonic() - began
        size = sum(path.stat().st_size for path in folder.iterdir())
        found = Architectures(folder)
        nodes, parameters = found.column("nodes"), found.column("parameters") / 1e6
        picks = np.random.default_rng(0).integers(0, len(found), 20 * CHUNK).tolist()
        began = time.process_time()
        for start in range(0, len(picks), CHUNK):
            with collection_paused():
                graph_features(found.graphs(picks[start : start + CHUNK], (3, 32, 32), 10))
        read = len(picks) / (time.process_time() - began)
        began = time.process_time()
        for start in range(0, len(picks), CHUNK):
            rng = random.Random(start)
            with collection_paused():
                fresh = [space.sample(rng) for _ in range(CHUNK)]
                graph_features([item.for_images((3, 32, 32), 10).graph for item in fresh])
        drawn = len(picks) / (time.process_time() - began)
    rows += [
        (f"`ghnas generate` of {options.count:,}", f"{seconds:,.0f} s"),
        ("of these a second, all cores", f"{options.count / seconds:,.0f}"),
        ("on disk", f"{size / 1e6:,.1f} MB, {size / options.count:.0f} bytes each"),
        ("nodes", f"{nodes.min()}-{nodes.max()}, {nodes.mean():.1f} +- {nodes.std():.1f}"),
        (
            "parameters (M)",
            f"{parameters.min():.2f}-{parameters.max():.2f}, "
            f"{parameters.mean():.2f} +- {parameters.std():.2f}",
        ),
        (
            "from choices (random ones of the files) to features with virtual edges, one core",
            f"{read:,.0f} a second",
        ),
        ("the same, drawn on the fly", f"{drawn:,.0f} a second"),
    ]
    write_table("deepnets", "A million architectures of DeepNets-1M", ("what", "figure"), rows)
    rows = [_split(name, options.sampled, options.paths) for name in PUBLISHED]
    head = ("split", "nodes", "mean", "degree", "path", "published nodes", "mean", "degree", "path")
    write_table(
        "deepnets_splits",
        "The splits of DeepNets-1M beside the published ones",
        head,
        rows,
        [
            f"{options.sampled} architectures of each split, seeds of their own; paths "
            f"(undirected, between all pairs of nodes) of {options.paths}. Published: the "
            "authors' own notebook.",
        ],
    )


def _split(name: str, count: int, paths: int) -> tuple[str, ...]:
    space, rng = load_space("deepnets1m").with_skeleton(split=name), random.Random(name)
    graphs = [space.sample(rng).for_images((3, 32, 32), 10).graph for _ in range(count)]
    features = graph_features(graphs)
    nodes = np.array([item.data.num_nodes for item in features])
    edges = np.array([int((item.data.path_length == 1).sum()) for item in features])
    degrees = 2 * edges / nodes
    lengths = np.array([_mean_path(item) for item in features[:paths]])
    return (
        name,
        f"{nodes.min()}-{nodes.max()}",
        f"{nodes.mean():.1f} +- {nodes.std():.1f}",
        f"{degrees.mean():.1f}",
        f"{lengths.mean():.1f} +- {lengths.std():.1f}",
        *PUBLISHED[name],
    )


def _mean_path(item: GraphFeatures) -> float:
    edges, count = item.data.path_index[:, item.data.path_length == 1].numpy(), item.data.num_nodes
    table = csr_array((np.ones(edges.shape[1]), (edges[0], edges[1])), shape=(count, count))
    lengths = shortest_path(table, directed=False, unweighted=True)
    return float(lengths[~np.eye(len(lengths), dtype=bool)].mean())


if __name__ == "__main__":
    main()
