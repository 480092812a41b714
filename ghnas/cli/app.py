"""The `ghnas` program: its commands, and the one place where mistakes become messages."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import typer

from ghnas.cli import (
    bench,
    export,
    finetune,
    predict,
    rank,
    report,
    runs,
    search,
    spaces,
    train,
    truth,
)
from ghnas.utils.errors import UserError, UserNote

BAD_INPUT = 2
INTERRUPTED = 130

app = typer.Typer(
    name="ghnas",
    help="Neural architecture search: a graph hypernetwork predicts the weights, "
    "so thousands of candidates are ranked without training any of them.",
    epilog="Example: ghnas search --space darts --budget 10000, then ghnas finetune top-5",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("search", epilog=search.EXAMPLE)(search.search)
app.command("finetune", epilog=finetune.EXAMPLE)(finetune.finetune)
app.command("export", epilog=export.EXAMPLE)(export.export)
app.command("dashboard", epilog=runs.DASHBOARD_EXAMPLE)(runs.dashboard)
app.command("train", epilog=train.EXAMPLE)(train.train)
app.command("truth", epilog=truth.EXAMPLE)(truth.truth)
app.command("rank", epilog=rank.EXAMPLE)(rank.rank)
app.command("bench", epilog=bench.EXAMPLE)(bench.bench)
app.command("predict", epilog=predict.PREDICT_EXAMPLE)(predict.predict)
app.command("convert", epilog=predict.CONVERT_EXAMPLE)(predict.convert)
app.command("generate", epilog=spaces.GENERATE_EXAMPLE)(spaces.generate)
app.command("spaces", epilog=spaces.SPACES_EXAMPLE)(spaces.spaces)
app.command("show", epilog=runs.SHOW_EXAMPLE)(runs.show)
app.command("report", epilog=report.EXAMPLE)(report.report)
app.command("runs", epilog=runs.RUNS_EXAMPLE)(runs.runs)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"ghnas {version('ghnas')}")
        except PackageNotFoundError:
            typer.echo("ghnas, a checkout that is not installed")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: What follows `ghnas` on the command line; default: the process's own.

    Returns:
        The exit code: 0, 2 for a mistake of the user's (one sentence on stderr), 130 after
        Ctrl-C.
    """
    try:
        result = _run(arguments)
        return result if isinstance(result, int) else 0
    except UserError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(_explain(error))
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)


def _run(arguments: Sequence[str] | None) -> Any:
    command = typer.main.get_command(app)
    try:
        with warnings.catch_warnings():
            # torch and its companions warn of changes that no user of this program can act on
            warnings.filterwarnings(
                "ignore", category=FutureWarning, module=r"torch(_geometric)?\."
            )
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            return command.main(
                args=None if arguments is None else list(arguments),
                prog_name="ghnas",
                standalone_mode=False,
            )
    except _USAGE_ERROR as error:
        where = getattr(getattr(error, "ctx", None), "command_path", "ghnas")
        message = " ".join(error.format_message().split()).rstrip(".")
        raise UserError(f"{message}; see {where} --help") from error


def _show_warning(
    others: Callable[..., None], message: Warning | str, category: type[Warning], *rest: Any
) -> None:
    """Print the library's own warnings as notes, without file and line."""
    if issubclass(category, UserNote):
        print(f"note: {message}", file=sys.stderr)
    else:
        others(message, category, *rest)


# typer brings its own copy of click or uses the installed one: take the class from either
_USAGE_ERROR: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")


def _fail(message: str, code: int = BAD_INPUT) -> int:
    print(f"ghnas: {message}", file=sys.stderr)
    return code


_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}


def _explain(error: OSError) -> str:
    """An operating-system error in one sentence."""
    reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
    where = f"{error.filename}: " if error.filename else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "free some space" if full else "choose another folder"
    known = error.errno in _REASONS
    return f"{where}{reason}; {advice} and try again" if known else f"{where}{reason}"
