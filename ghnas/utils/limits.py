"""What the system lets a user have of: asked for before libraries that do not survive its lack."""

from __future__ import annotations

import os
import threading


def require_threads(count: int) -> None:
    """See whether so many threads may start, or processes, which the system counts alike.

    Raises:
        RuntimeError: If not.
    """
    over, started = threading.Event(), []
    try:
        for _ in range(count):
            thread = threading.Thread(target=over.wait)
            thread.start()
            started.append(thread)
    finally:
        over.set()
        for thread in started:
            thread.join()


def require_files(count: int) -> None:
    """See whether so many files, of which connections are a kind, may be opened.

    Raises:
        OSError: If not.
    """
    opened: list[int] = []
    try:
        for _ in range(count):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for each in opened:
            os.close(each)
