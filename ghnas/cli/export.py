"""`ghnas export`: a fine-tuned network as a program that needs nothing of ghnas."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from ghnas.cli import options
from ghnas.cli.options import text
from ghnas.cli.terminal import console, print_json, say
from ghnas.utils.errors import UserError

EXAMPLE = "Example: ghnas export top-1 -o network.onnx"


def export(
    which: Annotated[
        str,
        typer.Argument(
            metavar="WHICH",
            help="top-1 or trial-N of a run, fine-tuned, or the name or folder of a fine-tuned "
            "network.",
        ),
    ] = "top-1",
    run: options.RunName = None,
    form: Annotated[
        str | None,
        text(
            "--format",
            "torch|onnx|python",
            "A torch.export program (.pt2), ONNX (.onnx) or a readable Python file (.py).",
            "by the suffix of --output; else python",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The file to write.", show_default="trial_N.py"
        ),
    ] = None,
    results: options.Results = options.DEFAULT_RESULTS,
    json: options.Json = False,
) -> None:
    """Write a fine-tuned network as a file that runs without ghnas.

    What normalises the images and the names of the classes are inside; any batch size works. The
    export is run once and compared with the network before the command ends.
    """
    from ghnas.exports.formats import SUFFIXES
    from ghnas.exports.formats import export as run_export

    suffixes = {str(name): suffix for name, suffix in SUFFIXES.items()}
    if form is not None and form not in suffixes:
        raise UserError(f"unknown format {form!r}: use {', '.join(suffixes)}")
    network = _folder(which, results, run)
    path = output or Path(network.name.replace("-", "_") + suffixes[form or "python"])
    out = console(json)
    written = run_export(network, path, form)
    if json:
        print_json({"network": str(network), "output": str(written)})
        return
    files = [written]
    if written.suffix == suffixes["python"]:
        files.append(written.with_suffix(".safetensors"))
    sizes = " and ".join(f"{file} ({decimal(file.stat().st_size)})" for file in files)
    say(out, f"wrote {sizes} of {network}")


def _folder(which: str, results: Path, run: str | None) -> Path:
    """The folder of a fine-tuned network."""
    if Path(which).is_dir():
        return Path(which)
    from ghnas.engine.runs import find_run, select
    from ghnas.training.saved import WEIGHTS

    found = find_run(results, run)
    tuned = [path.parent.name for path in found.network_folder("").glob(f"*/{WEIGHTS}")]
    if which in tuned:
        return found.network_folder(which)
    chosen = select(found, which)
    if len(chosen) != 1:
        raise UserError(f"{which} names {len(chosen)} networks: export one at a time")
    name = chosen[0].name
    if name in tuned:
        return found.network_folder(name)
    if others := sorted(item for item in tuned if item.startswith(f"{name}-")):
        raise UserError(f"{name} of {found.name} is fine-tuned as {', '.join(others)}: name it so")
    raise UserError(f"{name} of {found.name} is not fine-tuned: run `ghnas finetune {name}` first")
