"""Ctrl-C that always ends a study, even if Python discards the exception."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_pressed = threading.Event()


@contextmanager
def reliable_interrupts() -> Iterator[None]:
    """Raise `KeyboardInterrupt` for every Ctrl-C within the block.

    Python discards an exception that is raised in a destructor, which may run when Ctrl-C is pressed, and prints a
    traceback. Here the signal is remembered as well, `check_interrupt` raises the exception again, and nothing is
    printed. Outside of the main thread, and where the signal is ignored, nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    previous, report = before, sys.unraisablehook

    def remember(number: int, frame: FrameType | None) -> None:
        _pressed.set()
        previous(number, frame)

    def report_others(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            report(unraisable)

    _pressed.clear()
    signal.signal(signal.SIGINT, remember)
    sys.unraisablehook = report_others
    try:
        yield
        check_interrupt()
    finally:
        signal.signal(signal.SIGINT, previous)
        sys.unraisablehook = report
        _pressed.clear()


def check_interrupt() -> None:
    """Raise `KeyboardInterrupt` if Ctrl-C was pressed within `reliable_interrupts`."""
    if _pressed.is_set():
        raise KeyboardInterrupt
