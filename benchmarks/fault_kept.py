"""What the program keeps and reads again, as further kinds of input: databases, tables, predictors,
generated architectures, states of trainings, lists of images; and images in shards.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from fault_inputs import Inputs, Kind, damage_run, written

from ghnas import finetune
from ghnas.cli import main
from ghnas.cli.app import exit_code
from ghnas.data import evaluation_batches, load_data
from ghnas.engine.run import LATENCIES
from ghnas.scoring.latency import latency_table
from ghnas.scoring.predictor import Predictor, load_predictor
from ghnas.spaces import Space, load_space
from ghnas.spaces.archive import Architectures
from ghnas.training.hypernetwork.state import TrainingState
from ghnas.training.truth_table import read_truth, subset
from ghnas.utils.tables import RowFile

EACH = 6
"""Images of a class in a shard."""
JOINED = "joined"


def _database(inputs: Inputs, content: bytes) -> int:
    """Of a joined search that has ended."""
    written(inputs, f"{JOINED}/study.db", content)
    results = ["--results", str(inputs.folder / JOINED)]
    codes = [main(["runs", *results])]
    if codes == [0]:
        codes.append(main(["show", "top-1", *results]))
    if codes == [0, 0]:
        codes.append(main(_search(inputs)))
    return max(codes)


def _search(inputs: Inputs) -> list[str]:
    work = inputs.folder / JOINED
    return [
        "search", "--ghn", str(inputs.ghn), "--budget", "4", "--score-images", "8", "--device",
        "cpu", "--storage", f"sqlite:///{work}/study.db", "--join", "ours", "--results", str(work),
    ]  # fmt: skip


def _accuracies(inputs: Inputs, content: bytes) -> int:
    path = written(inputs, "truth.csv", content)
    return exit_code(lambda: subset(read_truth(path), "tune").mean is None)


def _settings(inputs: Inputs, content: bytes) -> int:
    path = written(inputs, "rows/truth.csv", b"architecture,seed\n")
    written(inputs, "rows/truth.csv.json", content)

    def append() -> None:
        with RowFile(path, ("architecture", "seed"), {"steps": 4}) as rows:
            rows.append([{"architecture": "a", "seed": 1}])

    return exit_code(append)


def _latency_table(inputs: Inputs, content: bytes) -> int:
    path = written(inputs, "latency.json", content)

    def predict() -> None:
        space = _small_space()
        latency_table(space, device="cpu", path=path).predict(space.sample(seed=0).graph)

    return exit_code(predict)


def _predictor(inputs: Inputs, content: bytes) -> int:
    path = written(inputs, "predictor.json", content)

    def predict() -> None:
        space = load_space("nasbench201")
        load_predictor(path, space).predict([space.sample(seed=0)])

    return exit_code(predict)


def _architectures(name: str, inputs: Inputs, content: bytes) -> int:
    folder = inputs.folder / "many"
    sound = (folder / name).read_bytes()
    (folder / name).write_bytes(content)

    def read() -> None:
        found = Architectures(folder)
        for number in (0, len(found) - 1):
            found[number].graph  # noqa: B018

    try:
        return exit_code(read)
    finally:
        (folder / name).write_bytes(sound)


def _state(inputs: Inputs, content: bytes) -> int:
    path = written(inputs, "ghn.safetensors.state", content)
    return exit_code(lambda: _training_state(path).restore()[0] * 0)


def _training_state(path: Path) -> TrainingState:
    ghn = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(ghn.parameters())
    ghn(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return TrainingState(path, {"seed": 1}, {"ghn": ghn, "optimizer": optimizer})


def _finetuned(name: str, inputs: Inputs, content: bytes) -> int:
    """A file of a training of two epochs, of which one is done."""
    folder = inputs.folder / "finetuned"
    begun = inputs.folder / ("whole" if name == "history.json" else "begun")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(begun, folder)
    (folder / name).write_bytes(content)
    return exit_code(partial(_finetune, folder))


def _finetune(folder: Path, report: Callable[[Any], None] | None = None) -> None:
    data = load_data("embedded", train_limit=16)
    finetune(_small_space().sample(seed=0), data, epochs=2, path=folder, report=report)


def _small_space() -> Space:
    return load_space("darts").with_skeleton(cells=1, channels=2).for_images((3, 16, 16), 10)


def _shard(inputs: Inputs, content: bytes) -> int:
    written(inputs, "shards/train/0.tar", content)
    return exit_code(partial(_read_images, inputs.folder / "shards"))


def _index(inputs: Inputs, content: bytes) -> int:
    _listed(inputs).write_bytes(content)
    with _cache(inputs):
        return exit_code(partial(_read_images, inputs.folder / "listed"))


def _read_images(folder: Path) -> None:
    data = load_data(str(folder))
    for _ in evaluation_batches(data.validation, 8, device="cpu", mean=data.mean, std=data.std):
        pass


def _listed(inputs: Inputs) -> Path:
    """The list of the validation images."""
    (path,) = (inputs.folder / "listed-cache").rglob("listed-validation-*.npz")
    return path


def _cache(inputs: Inputs) -> AbstractContextManager[Any]:
    return patch.dict(os.environ, GHNAS_CACHE=str(inputs.folder / "listed-cache"))


KEPT = {
    kind.name: kind
    for kind in (
        Kind("database", _database),
        Kind("latencies", partial(damage_run, LATENCIES)),
        Kind("accuracies", _accuracies),
        Kind("settings", _settings),
        Kind("latency table", _latency_table),
        Kind("predictor", _predictor),
        Kind("architectures", partial(_architectures, "00000.npy"), text=False),
        Kind("origin", partial(_architectures, "manifest.json")),
        Kind("state", _state, text=False),
        Kind("training", partial(_finetuned, "state.pt"), text=False),
        Kind("history", partial(_finetuned, "history.json")),
        Kind("description", partial(_finetuned, "architecture.json")),
        Kind("shard", _shard, text=False),
        Kind("index", _index, text=False),
    )
}


def add_kept(inputs: Inputs) -> None:
    """Sound files of every kind, beside the inputs."""
    with redirect_stdout(io.StringIO()) as told, redirect_stderr(told):
        _add_kept(inputs)


def _add_kept(inputs: Inputs) -> None:
    folder, examples = inputs.folder, inputs.examples
    (folder / JOINED).mkdir()
    if code := main(_search(inputs)):
        raise RuntimeError(f"the search ends with {code}")
    examples["database"] = [(folder / JOINED / "study.db").read_bytes()]
    examples["latencies"] = [b'{"0": 0.001, "3": 0.002}']
    rows = "".join(f"a{i},{seed},{0.1 + i / 20}\n" for i in range(12) for seed in (0, 1))
    examples["accuracies"] = [f"architecture,seed,test_accuracy\n{rows}".encode()]
    examples["settings"] = [b'{"steps": 4}']
    latency_table(_small_space(), networks=12, device="cpu", path=folder / "latency.json")
    examples["latency table"] = [(folder / "latency.json").read_bytes()]
    space, rng = load_space("nasbench201"), random.Random(0)
    known = [space.sample(rng) for _ in range(12)]
    Predictor(space, known, [rng.random() for _ in known]).save(folder / "predictor.json")
    examples["predictor"] = [(folder / "predictor.json").read_bytes()]
    main(["generate", "--space", "darts", "--count", "20", "-o", str(folder / "many")])
    examples["architectures"] = [(folder / "many" / "00000.npy").read_bytes()]
    examples["origin"] = [(folder / "many" / "manifest.json").read_bytes()]
    _training_state(folder / "ghn.safetensors.state").save(3, [{"loss": 1.0}])
    examples["state"] = [(folder / "ghn.safetensors.state").read_bytes()]
    _add_finetuned(inputs)
    members = {f"{i}.png": examples["image"][0] for i in range(2 * EACH)}
    members |= {f"{i}.cls": b"%d" % (i % 2) for i in range(2 * EACH)}
    examples["shard"] = [_tar(members)]
    for place in ("shards", "listed"):
        for part in ("train", "val"):
            written(inputs, f"{place}/{part}/0.tar", examples["shard"][0])
    with _cache(inputs):
        _read_images(folder / "listed")
    examples["index"] = [_listed(inputs).read_bytes()]


def _add_finetuned(inputs: Inputs) -> None:
    folder, examples = inputs.folder, inputs.examples

    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        _finetune(folder / "begun", stop)
    _finetune(folder / "whole")
    examples["training"] = [(folder / "begun" / "state.pt").read_bytes()]
    examples["description"] = [(folder / "begun" / "architecture.json").read_bytes()]
    examples["history"] = [(folder / "whole" / "history.json").read_bytes()]


def _tar(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as shard:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            shard.addfile(about, io.BytesIO(content))
    return stream.getvalue()
