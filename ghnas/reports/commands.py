"""The command lines that start a search, and its trainings, again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ghnas.engine.manifest import Manifest, ShortList


def search_options(manifest: Manifest) -> dict[str, Any]:
    """What a search was started with, by the names of the parameters of `ghnas search` and as that
    reads them; without the trainings."""
    latency = manifest.latency.setting if manifest.latency else None
    return {
        "space": manifest.space,
        "cells": manifest.skeleton.get("cells"),
        "channels": manifest.skeleton.get("channels"),
        "data": manifest.sources.data,
        "image_size": manifest.image_shape[-1],
        "ghn": Path(manifest.sources.ghn or "none"),
        "budget": manifest.budget,
        "sampler": manifest.sampler,
        "seed": manifest.seed,
        "objective": ",".join(manifest.objectives),
        "score_images": manifest.objective.get("images"),
        "exact": manifest.objective.get("keep") is None,
        "max_params": manifest.max_parameters,
        "max_flops": manifest.max_flops,
        "max_latency": manifest.max_latency,
        "latency_batch": latency and latency.batch,
        "latency_threads": latency and latency.threads,
        "storage": manifest.storage,
        "join": manifest.study_name if manifest.joined else None,
    }


def training_options(asked: ShortList) -> dict[str, Any]:
    """What trainings were asked for, by the names of the parameters of `ghnas search`."""
    lengths = asked.steps or asked.epochs
    return {
        "train": asked.count,
        "time": f"{asked.seconds:.15g}s" if asked.seconds else None,
        "train_steps" if asked.steps else "train_epochs": ",".join(map(str, lengths)),
        "train_cells": asked.cells,
        "train_from": asked.start,
        "mutate": asked.mutate,
    }


def as_words(options: Mapping[str, Any]) -> str:
    """Options as they are typed, those that are set alone."""
    words = []
    for name, value in options.items():
        if value is not None and value is not False:
            words.append("--" + name.replace("_", "-"))
            words += [] if value is True else [shlex.quote(str(value))]
    return " ".join(words)


def search_command(manifest: Manifest) -> str:
    """The command line that starts the same search."""
    options = search_options(manifest)
    if manifest.uses_ghn and manifest.sources.ghn is None:  # it was given in Python
        options["ghn"] = None
    options["exact"] &= manifest.objectives == ("accuracy",)  # others are never raced for
    if manifest.max_latency is not None:
        options["max_latency"] = f"{1000 * manifest.max_latency:.6g}ms"
    if manifest.short_list:
        options |= training_options(manifest.short_list)
    return f"ghnas search {as_words(options)}"
