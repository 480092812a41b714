"""Files that may not grow, as where a quota is used up, and files that are not written to their
end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The system refuses to write more into a file, as it does where a quota is used up."""
    resource = pytest.importorskip("resource", reason="needs limits of POSIX")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def workers_end_while_they_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are forked from now on end as if killed, with a file before its last step."""
    own, sync = os.getpid(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: sync(file) if os.getpid() == own else os._exit(1))
