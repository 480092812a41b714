"""Files that are never left half-written."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file beside its place, then rename it into place.

    Raises:
        OSError: If the folder cannot be written or the disk is full; the old file is kept.
    """
    data = content.encode() if isinstance(content, str) else content
    replace_atomically(path, lambda beside: beside.write_bytes(data))


def replace_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, then rename it into place.

    The file may be read and written by whom the process's umask says, whatever `write` does.

    Raises:
        OSError: As `write_atomically`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # not `tempfile`: what it makes can be read by its owner alone, and so could the result
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        beside.touch(exist_ok=False)
        mode = beside.stat().st_mode
        write(beside)
        beside.chmod(mode)  # safetensors makes a file of its own that only its owner can read
        with beside.open("rb+") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name with no content
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def try_lock(handle: int) -> bool:
    """Lock an open file against other processes, until it is closed; False if one has it."""
    if sys.platform == "win32":  # no advisory locks of this kind: the user must take care
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(handle: int) -> None:
    """Release a lock of `try_lock`, also where a forked process still has the file open."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_UN)
