"""What the system lets a user have of."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from ghnas.utils.limits import require_files

FILES = Path("/proc/self/fd")


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_files_are_counted_and_closed() -> None:
    import resource

    before, open_now = resource.getrlimit(resource.RLIMIT_NOFILE), len(os.listdir(FILES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 10, before[1]))
    try:
        require_files(5)
        with pytest.raises(OSError, match="Too many open files") as raised:
            require_files(50)
        assert raised.value.errno == errno.EMFILE
        assert len(os.listdir(FILES)) == open_now
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
