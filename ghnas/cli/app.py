"""The `ghnas` program: its commands, and the one place where mistakes become messages."""

from __future__ import annotations

import errno
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Annotated, Any

import typer

from ghnas.cli import (
    bench,
    export,
    finetune,
    ghns,
    predict,
    rank,
    report,
    runs,
    search,
    spaces,
    train,
    truth,
)
from ghnas.cli.interrupts import INTERRUPTED, Interrupts
from ghnas.cli.terminal import use_plain_characters
from ghnas.utils.errors import UserError, UserNote, one_sentence

BAD_INPUT = 2

app = typer.Typer(
    name="ghnas",
    help="Neural architecture search: a graph hypernetwork predicts the weights, "
    "so thousands of candidates are ranked without training any of them.",
    epilog="Example: ghnas search --space darts --budget 10000, then ghnas finetune top-5",
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "search": (search.search, search.EXAMPLE),
    "finetune": (finetune.finetune, finetune.EXAMPLE),
    "export": (export.export, export.EXAMPLE),
    "dashboard": (runs.dashboard, runs.DASHBOARD_EXAMPLE),
    "train": (train.train, train.EXAMPLE),
    "ghns": (ghns.ghns, ghns.EXAMPLE),
    "truth": (truth.truth, truth.EXAMPLE),
    "rank": (rank.rank, rank.EXAMPLE),
    "bench": (bench.bench, bench.EXAMPLE),
    "predict": (predict.predict, predict.PREDICT_EXAMPLE),
    "convert": (predict.convert, predict.CONVERT_EXAMPLE),
    "generate": (spaces.generate, spaces.GENERATE_EXAMPLE),
    "spaces": (spaces.spaces, spaces.SPACES_EXAMPLE),
    "show": (runs.show, runs.SHOW_EXAMPLE),
    "report": (report.report, report.EXAMPLE),
    "runs": (runs.runs, runs.RUNS_EXAMPLE),
}
"""What each does, and an example."""


def _paragraphs(function: Callable[..., None]) -> str:
    """A docstring with its paragraphs each on one line: the terminal says where they break."""
    text = inspect.getdoc(function) or ""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


for _name, (_function, _example) in COMMANDS.items():
    app.command(_name, help=_paragraphs(_function), epilog=_example)(_function)


def _print_version(wanted: bool) -> None:
    if wanted:
        from ghnas.utils.versions import installed_version

        own = installed_version("ghnas")
        typer.echo(f"ghnas {own}" if own else "ghnas, a checkout that is not installed")
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
        Ctrl-C or a wish to end (`SIGTERM`, as of a batch system or a container).
    """
    use_plain_characters()
    return exit_code(lambda: _run(arguments))


def exit_code(run: Callable[[], object]) -> int:
    """What the program ends with after `run`; says on stderr what went wrong, see `main`."""
    interrupts: Interrupts | None = None
    try:
        interrupts = Interrupts()
        with _warnings(), interrupts:
            result = run()
        return result if isinstance(result, int) else 0
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except Exception as error:
        if interrupts and interrupts.heard:  # of what could not go on as it was
            return _fail("interrupted", INTERRUPTED)
        sentence = _sentence(error)
        if sentence is None:
            raise
        return _fail(sentence)


def _sentence(error: Exception) -> str | None:
    """What there is to say of an error; None of one that is the program's own fault."""
    if any(_NO_FILE.search(str(each)) for each in _chain(error)):  # not the fault of what was read
        return _LIMITS[errno.EMFILE]
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return _explain(error)
    if isinstance(error, RuntimeError):
        if _NO_THREAD.search(str(error)):
            return _LIMITS[errno.EAGAIN]
        if "DataLoader worker" in str(error):
            from ghnas.utils.process_executor import ENDED

            return ENDED
    if not _is_of_memory(error):
        return None
    return (
        "there is too little memory for this: what was finished is kept; use fewer --workers, "
        "smaller images or networks, or a machine with more"
    )


def _is_of_memory(error: BaseException) -> bool:
    """Whether there was too little memory, also where a library has made another error of that."""
    if isinstance(error, RuntimeError | ImportError) and _OUT_OF_MEMORY.search(str(error)):
        return True
    return any(isinstance(each, MemoryError) for each in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


_OUT_OF_MEMORY = re.compile(
    "out of memory|allocate memory|unable to allocate|failed to map segment|create a primitive",
    re.IGNORECASE,
)
"""What torch, its oneDNN and the loader of libraries say; Python and NumPy raise a MemoryError."""
_NO_THREAD = re.compile("can't start new thread|Resource temporarily unavailable")
_NO_FILE = re.compile(os.strerror(errno.EMFILE))
"""What Python and torch say where no process or thread may start, and no file may be opened."""


def _run(arguments: Sequence[str] | None) -> Any:
    command = typer.main.get_command(app)
    given = sys.argv[1:] if arguments is None else list(arguments)
    _refuse_empty(given)
    _require_a_folder()
    try:
        return command.main(args=given, prog_name="ghnas", standalone_mode=False)
    except _USAGE_ERROR as error:
        where = getattr(getattr(error, "ctx", None), "command_path", "ghnas")
        message = " ".join(error.format_message().split()).rstrip(".")
        raise UserError(f"{message}; see {where} --help") from error


def _refuse_empty(arguments: Sequence[str | None]) -> None:
    """An option's empty value is that of a variable that a script did not set: no default."""
    for option, value in pairwise([*arguments, None]):
        name = str(option).removesuffix("=")
        if option and option.startswith("--") and (value == "" or name != option):
            raise UserError(f"{name} has an empty value: give one, or leave {name} out")


def _require_a_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError as error:  # in which torch cannot even be imported
        raise UserError("this folder has been removed: go to another one, try again") from error


@contextmanager
def _warnings() -> Iterator[None]:
    """Show the library's own notes, and no warning that a user of this program cannot act on: those
    of torch and its companions are of changes to come, those of Pillow of an image's metadata."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch(_geometric)?\.")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.showwarning = partial(_show_warning, warnings.showwarning)
        yield


def _show_warning(
    others: Callable[..., None], message: Warning | str, category: type[Warning], *rest: Any
) -> None:
    """Print the library's own warnings as notes, without file and line."""
    if issubclass(category, UserNote):
        print(f"note: {one_sentence(str(message))}", file=sys.stderr)
    else:
        others(message, category, *rest)


# typer brings its own copy of click or uses the installed one: take the class from either
_USAGE_ERROR: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")


def _fail(message: str, code: int = BAD_INPUT) -> int:
    print(f"ghnas: {one_sentence(message)}", file=sys.stderr)
    return code


_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EFBIG: "the file is larger than may be written here",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}
_LIMITS = {
    errno.EAGAIN: "no more processes may be started here: use fewer --workers, or raise the limit "
    "(ulimit -u)",
    errno.EMFILE: "no more files may be open at once: use fewer --workers, or raise the limit "
    "(ulimit -n)",
}
"""Of a user's processes and files, which the system counts."""


def _explain(error: OSError) -> str:
    """An operating-system error in one sentence."""
    if error.errno in _LIMITS:
        return _LIMITS[error.errno]
    reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
    where = f"{error.filename}: " if error.filename else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "free some space" if full else "choose another folder"
    known = error.errno in _REASONS
    return f"{where}{reason}; {advice} and try again" if known else f"{where}{reason}"
