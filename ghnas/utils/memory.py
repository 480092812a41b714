"""Memory for libraries that end the process where they find none."""

from __future__ import annotations

import mmap


def require_memory(size: int, purpose: str) -> None:
    """Make sure that there is memory for what a library will do, where it would end the process
    instead of raising an error.

    Args:
        size: In bytes; none of them is kept.
        purpose: What they are for, as the end of "no memory to".

    Raises:
        MemoryError: If there is not.
    """
    try:
        mmap.mmap(-1, size).close()
    except OSError as error:
        raise MemoryError(f"no memory to {purpose}") from error
