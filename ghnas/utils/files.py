"""Files that are never left half-written."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import secrets
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ghnas.utils.errors import UserError


def cache_folder() -> Path:
    """Where everything is kept that can be made again: $GHNAS_CACHE, else ~/.cache/ghnas."""
    return Path(os.environ.get("GHNAS_CACHE") or Path.home() / ".cache" / "ghnas")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file beside its place, then rename it into place.

    Raises:
        OSError: If the folder cannot be written or the disk is full; the old file is kept.
        UserError: If there is something at its place that is neither a file nor a folder.
    """
    data = content.encode() if isinstance(content, str) else content
    replace_atomically(path, lambda beside: beside.write_bytes(data))


def replace_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, then rename it into place. Where `path` is a link, it
    stays one, and what it points to is replaced.

    What a process leaves there that is killed meanwhile, the next one that writes `path` removes.

    The file may be read and written by whom the process's umask says, whatever `write` does.

    Raises:
        OSError, UserError: As `write_atomically`.
    """
    with _beside(path) as beside:
        mode = beside.stat().st_mode
        write(beside)
        beside.chmod(mode)  # safetensors makes a file of its own that only its owner can read
        with beside.open("rb+") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name with no content
        os.replace(beside, os.path.realpath(path))


def require_writable(path: Path) -> None:
    """Make sure, before long work, that its result can be written to `path`; leaves nothing there.

    Raises:
        OSError: If the folder cannot be made or written, the disk is full, or `path` is a folder.
        UserError: If `path` is neither a file nor a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    made = [folder for folder in path.parents if not folder.exists()]
    with _beside(path) as beside:
        beside.write_bytes(bytes(4096))
    for folder in made:
        with suppress(OSError):  # another process may have put something there
            folder.rmdir()


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A new empty file beside `path`, gone at the end; errors name `path`."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path} is a device or a pipe, which a file would replace: name a file")
    place = Path(os.path.realpath(path))
    # not `tempfile`: what it makes can be read by its owner alone, and so could the result
    beside = place.with_name(f".{place.name}.{_HERE}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(place)
        beside.touch(exist_ok=False)
        yield beside
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


_HERE = f"{zlib.crc32(platform.node().encode()):08x}"
"""This machine, among those that share a file system."""


_BEGUN = re.compile(rf"\.(.+)\.{_HERE}-([0-9]+)-[^-]*", re.DOTALL)
"""Name of a file that is being written: what it will be, and the number of the process."""


def remove_abandoned(*paths: Path) -> None:
    """Remove what processes of this machine had begun to write beside files when they were
    killed."""
    places = {Path(os.path.realpath(path)) for path in paths}
    for folder in {place.parent for place in places}:
        for left in folder.glob(f".*.{_HERE}-*-*"):
            begun = _BEGUN.fullmatch(left.name)
            if begun and folder / begun[1] in places and not _is_running(int(begun[2])):
                with suppress(OSError):  # another process may have removed it
                    left.unlink()


def _is_running(process: int) -> bool:
    """Whether there is a process of that number; where that cannot be asked, it is."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def is_empty(folder: Path) -> bool:
    """Whether there is nothing in a folder that anybody sees: what a process that was killed had
    begun to write is hidden."""
    return all(item.name.startswith(".") for item in folder.iterdir())


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not JSON, or nested too deep.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


@contextmanager
def locked(path: Path, taken: str) -> Iterator[None]:
    """Keep other processes from the same lock; the kernel releases that of a killed one.

    Args:
        path: A file, made if need be.
        taken: What to say if another process has it.

    Raises:
        UserError: If another process has it.
    """
    with path.open("ab") as file:
        if sys.platform == "win32":  # no advisory locks of this kind: the user must take care
            yield
            return
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(taken) from error
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a forked process may still have the file open


@contextmanager
def locked_in_turn(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """As `locked`, but wait for another process that has the lock.

    Args:
        path: A file, made if need be, as its folder is.
        waiting: Called once, if there is another process to wait for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if sys.platform == "win32":  # as in `locked`
            yield
            return
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def cut_torn_line(path: Path) -> None:
    """Cut a last line that a killed process did not write to its end.

    Raises:
        OSError: If the file cannot be changed.
    """
    with path.open("rb+") as file:
        content = file.read()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
