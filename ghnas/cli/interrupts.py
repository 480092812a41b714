"""Ctrl-C, and `SIGTERM` that does the same: they end the program, wherever they arrive."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from ghnas.cli.terminal import started_by_torchrun

INTERRUPTED = 130
"""The exit code."""
_SOON = 0.05
"""Seconds after which an interrupt arrives again."""


class Interrupts:
    """While this is entered, Ctrl-C and `SIGTERM` raise KeyboardInterrupt in the main thread.

    They do it again a moment later where what they raise was lost: in a destructor, in a function
    that C code calls, and in an import, which libraries try and do without where it fails. While
    PyTorch is imported, before there is anything to finish, the program ends at once: half of
    PyTorch aborts, or recurses, rather than raises. Under torchrun `SIGTERM` ends a process at
    once: its processes wait for one another where no signal is heard.
    """

    def __init__(self) -> None:
        self.heard = False
        """Whether there was one."""
        self._imports, self._repeated = 0, False
        self._before: dict[int, Any] = {}
        self._lock, self._over = threading.Lock(), False

    def __enter__(self) -> Self:
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        if threading.current_thread() is not threading.main_thread():  # which alone hears of them
            return self
        self._imports = _imports(sys._getframe())
        interrupt, terminate = map(signal.getsignal, (signal.SIGINT, signal.SIGTERM))
        self._interrupt = interrupt if callable(interrupt) else signal.default_int_handler
        if callable(interrupt):  # the background of a shell ignores Ctrl-C
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._arrive)
        if terminate == signal.SIG_DFL and not started_by_torchrun():
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._terminate)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._over = True  # what arrives later is not ours
        for number, handler in self._before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._hook

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        interrupt = signal.getsignal(signal.SIGINT)  # what a search puts in place of ours
        (interrupt if callable(interrupt) else self._arrive)(number, frame)

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        if _is_loading("torch"):
            print("ghnas: interrupted", file=sys.stderr, flush=True)
            os._exit(INTERRUPTED)
        importing, repeated = _imports(frame) > self._imports, self._repeated
        self.heard, self._repeated = True, False
        if repeated and not importing:
            return  # it has left the import
        if importing:
            self._later(number, repeated=True)
        self._interrupt(number, frame)

    def _unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            ours = callable(signal.getsignal(signal.SIGINT))
            self._later(signal.SIGINT if ours else signal.SIGTERM)
        else:
            self._hook(unraisable)

    def _later(self, number: int, repeated: bool = False) -> None:
        timer = threading.Timer(_SOON, self._send, (number, repeated))
        timer.daemon = True
        timer.start()

    def _send(self, number: int, repeated: bool) -> None:
        """Let a signal arrive, whatever the main thread waits for."""
        with self._lock:
            if self._over:
                return
            self._repeated = repeated
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(threading.main_thread().ident or 0, number)
            else:  # on Windows
                _thread.interrupt_main(signal.Signals(number))


def _is_loading(name: str) -> bool:
    """Whether a module is being imported now."""
    specification = getattr(sys.modules.get(name), "__spec__", None)
    return getattr(specification, "_initializing", False)


def _imports(frame: FrameType | None) -> int:
    """How many imports are going on that this frame is part of."""
    count = 0
    while frame is not None:
        count += frame.f_code.co_filename == "<frozen importlib._bootstrap>"
        frame = frame.f_back
    return count
