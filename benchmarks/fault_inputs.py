"""What the program reads: a sound example of each kind, how it is damaged, how it is read."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from ghnas.cli import main
from ghnas.cli.app import exit_code
from ghnas.data import load_data
from ghnas.engine.run import JOURNAL, MANIFEST
from ghnas.engine.runs import find_run
from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.published import write_published
from ghnas.spaces import list_spaces, load_space

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from searching import DARTS_V2, finished, save_untrained, write_own_task

TOKENS = (
    "[]", "{}", "null", "-1", "0", "1e400", "nan", "true", "''", "1000000000", "10" * 200,
    "99999999999999999999", "../x", "*a", "&a [", "[" * 5000, "\x1b[31m", "\n", "\x00", "\u202e",
    "!!python/object/apply:os.system [true]", "range(0,1000000000)", "x" * 5000, "<<: *a", "\ud83e",
    "0x7fffffffffffffff", ": ", "- ", ",", "=", "|", "~", '"', "1_0", "\uff12", "top-", "trial-",
)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """Sound inputs.

    Args:
        folder: Where everything lies.
        ghn: A small hypernetwork.
        examples: For each kind contents of sound files.
    """

    folder: Path
    ghn: Path
    examples: dict[str, list[bytes]] = field(default_factory=dict)

    @property
    def results(self) -> Path:
        """The folder of the runs."""
        return self.folder / "results"

    @property
    def accuracies(self) -> Path:
        """A table of trained accuracies."""
        return self.folder / "accuracies.csv"

    @property
    def own(self) -> Path:
        """A folder with a space and images of a user's own."""
        return self.folder / "own"


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Args:
        name: What it is called.
        read: Gives a content to the program; returns its exit code.
        text: Whether parts of it are replaced by words, besides its bytes.
    """

    name: str
    read: Callable[[Inputs, bytes], int]
    text: bool = True

    def damaged(self, inputs: Inputs, rng: random.Random) -> bytes:
        """A content that was sound."""
        content = rng.choice(inputs.examples[self.name])
        for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
            content = rng.choice(_ON_TEXT if self.text and rng.random() < 0.7 else _ON_BYTES)(
                content, rng
            )
        return content


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content or b"\0")
    # headers are short, and matter more than what follows
    place = rng.randrange(min(len(changed), rng.choice((16, 512, 4096, len(changed)))))
    changed[place] = rng.choice(
        (rng.randrange(256), changed[place] ^ 1 << rng.randrange(8), 0, 255)
    )
    return bytes(changed)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _move(content: bytes, rng: random.Random) -> bytes:
    """A piece is left out, doubled, or stands elsewhere."""
    start = rng.randrange(len(content) + 1)
    piece = content[start : start + rng.choice((1, 4, 64, 1024))]
    rest = content[:start] + content[start + len(piece) :]
    place = rng.randrange(len(rest) + 1)
    again = rng.choice((b"", piece, piece + piece))
    return rest[:place] + again + rest[place:]


def _word(content: bytes, rng: random.Random) -> bytes:
    """A word or a number is replaced, or another stands before it."""
    words = content.split(rng.choice((b" ", b",", b":", b"\n", b'"', b"(", b"-")))
    text = rng.choice(TOKENS).encode("utf-8", "surrogatepass")
    word = rng.choice(words) or b" "
    start = content.find(word, rng.randrange(len(content) + 1))
    start = max(start, content.find(word), 0)
    return content[:start] + text + content[start + rng.choice((0, len(word))) :]


def _line(content: bytes, rng: random.Random) -> bytes:
    """A line is left out, doubled, or stands elsewhere."""
    lines = content.splitlines(keepends=True) or [b""]
    line = lines.pop(rng.randrange(len(lines)))
    for _ in range(rng.randrange(3)):
        lines.insert(rng.randrange(len(lines) + 1), line)
    return b"".join(lines)


_ON_BYTES: Sequence[Callable[[bytes, random.Random], bytes]] = (_flip, _flip, _flip, _cut, _move)
_ON_TEXT: Sequence[Callable[[bytes, random.Random], bytes]] = (_word, _word, _word, _line, _move)


# ------------------------------------------------------------------ how they are read


def written(inputs: Inputs, name: str, content: bytes) -> Path:
    """Write a content to a path below the inputs' folder."""
    path = inputs.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _argument(content: bytes) -> str:
    """As a shell hands it over: without a null, and not an option."""
    return " " + content.decode("utf-8", "surrogateescape").replace("\0", "")


def _space(inputs: Inputs, content: bytes) -> int:
    return main(["spaces", str(written(inputs, "mine.yaml", content))])


def _checkpoint(inputs: Inputs, content: bytes) -> int:
    source = written(inputs, "mine.safetensors", content)
    return main(["convert", str(source), str(inputs.folder / "converted.pt")])


def damage_run(name: str, inputs: Inputs, content: bytes) -> int:
    """A file of a run, for every command that reads runs without computing."""
    run = find_run(inputs.results).path
    copy = inputs.folder / "damaged" / "runs" / run.name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    (copy / name).write_bytes(content)
    results = ["--results", str(inputs.folder / "damaged")]
    codes = [main(["runs", *results])]
    if codes == [0]:
        codes.append(main(["show", "top-1", *results]))
    return max(codes)


def _selection(inputs: Inputs, content: bytes) -> int:
    output = ["--output", str(inputs.folder / "drawings")]
    return main(["show", _argument(content), "--results", str(inputs.results), *output])


def _option(inputs: Inputs, content: bytes) -> int:
    """Options of a search that ends before it begins, for its hypernetwork is not there."""
    arguments = [item for item in _argument(content)[1:].split("\n") if item]
    return main(["search", *arguments, "--ghn", str(inputs.folder / "none.safetensors")])


def _image(inputs: Inputs, content: bytes) -> int:
    written(inputs, "images/a/0.png", content)
    return exit_code(partial(load_data, str(inputs.folder / "images")))


def _parquet(inputs: Inputs, content: bytes) -> int:
    written(inputs, "tables/train.parquet", content)
    return exit_code(partial(load_data, str(inputs.folder / "tables")))


def _table(inputs: Inputs, content: bytes) -> int:
    table, output = written(inputs, "table.csv", content), inputs.folder / "bench"
    settings = ["--trainings", "2", "--seeds", "1", "--samplers", "random", "--workers", "1"]
    return main(["bench", str(table), "--space", "nasbench201", *settings, "--output", str(output)])


def _predictor_free(inputs: Inputs, content: bytes) -> int:
    from ghnas import load

    return exit_code(lambda: load(written(inputs, "model.safetensors", content)) and 0)


READ = {
    kind.name: kind
    for kind in (
        Kind("space", _space),
        Kind("checkpoint", _checkpoint, text=False),
        Kind("manifest", partial(damage_run, MANIFEST)),
        Kind("study", partial(damage_run, JOURNAL)),
        Kind("progress", partial(damage_run, "progress.json")),
        Kind("order", partial(damage_run, "order.json")),
        Kind("selection", _selection),
        Kind("option", _option),
        Kind("image", _image, text=False),
        Kind("parquet", _parquet, text=False),
        Kind("table", _table),
        Kind("network", _predictor_free),
    )
}


# ------------------------------------------------------------------ sound examples


def make_inputs(folder: Path) -> Inputs:
    """Sound inputs of every kind in a new folder."""
    data = load_data("embedded", train_limit=64)
    inputs = Inputs(folder, save_untrained(folder / "ghn.safetensors", load_space("darts"), data))
    run = finished(inputs.results)
    write_published(folder / "ghn.pt", load_ghn(inputs.ghn))
    examples = inputs.examples
    examples["space"] = [path.read_bytes() for path in list_spaces().values()]
    examples["checkpoint"] = [inputs.ghn.read_bytes(), (folder / "ghn.pt").read_bytes()]
    examples["manifest"] = [(run.path / MANIFEST).read_bytes()]
    examples["study"] = [run.study_path.read_bytes()]
    examples["progress"] = [(run.path / "progress.json").read_bytes()]
    order = {"expected": {"1": 0.5}, "trained": 16, "agreement": {"value": 0, "low": 0, "high": 1}}
    examples["order"] = [json.dumps(order).encode()]
    words = ["top-5", "trial-3", "front", "best", "3", DARTS_V2, str(run.ranked()[0].architecture)]
    examples["selection"] = [word.encode() for word in words]
    options = (
        "--budget 10 --seed 3",
        "--space darts --cells 3 --channels 4",
        "--device cpu --max-params 40k --max-flops 1.5M",
        "--objective accuracy,params --sampler evolution --data embedded",
        "--storage sqlite:///x.db --score-images 64 --exact",
        "--resume --train 8",
    )
    examples["option"] = [item.replace(" ", "\n").encode() for item in options]
    examples["image"] = _images(folder)
    examples["parquet"] = _parquets(folder, examples["image"][0])
    space = load_space("nasbench201")
    rows = [f'"{space.sample(seed=i)}",{50 + i},{40 + i}' for i in range(6)]
    head = "architecture,test_accuracy,validation_accuracy"
    inputs.accuracies.write_text("\n".join([head, *rows, ""]))
    examples["table"] = [inputs.accuracies.read_bytes()]
    inputs.own.mkdir()
    write_own_task(inputs.own, (8, 8), 40)
    examples["network"] = [_network(folder)]
    return inputs


def _images(folder: Path) -> list[bytes]:
    images = []
    for label in ("a", "b"):
        (folder / "images" / label).mkdir(parents=True)
        for number in range(6):
            picture = Image.new("RGB", (12, 12), (number * 20, 9, 40))
            picture.save(folder / "images" / label / f"{number}.png")
    for kind in ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP"):
        path = folder / f"sample.{kind.lower()}"
        Image.effect_noise((12, 12), 30).convert("RGB").save(path, kind)
        images.append(path.read_bytes())
    return images


def _parquets(folder: Path, image: bytes) -> list[bytes]:
    import pyarrow
    import pyarrow.parquet

    (folder / "tables").mkdir()
    found = []
    for column in ([image] * 12, [{"bytes": image, "path": "x"}] * 12):
        table = pyarrow.table({"img": column, "label": [0, 1, 2] * 4})
        pyarrow.parquet.write_table(table, folder / "sample.parquet", compression="none")
        found.append((folder / "sample.parquet").read_bytes())
    return found


def _network(folder: Path) -> bytes:
    from ghnas.architectures.network import Network
    from ghnas.training.saved import describe, save

    data = load_data("embedded", train_limit=64)
    space = load_space("darts").with_skeleton(cells=1, channels=2)
    architecture = space.for_images(data.image_shape, 10).sample(seed=0)
    with torch.no_grad():
        save(
            folder / "model.safetensors", Network(architecture.graph), describe(architecture, data)
        )
    return (folder / "model.safetensors").read_bytes()
