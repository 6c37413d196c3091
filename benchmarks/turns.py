"""Runs that advance in turn, so that whatever else the machine does slows all of them alike."""

from __future__ import annotations

import threading


class Turns:
    """Lets one thread at a time go on, in the order of their numbers, until each has left."""

    def __init__(self, count: int) -> None:
        self._waiting = list(range(count))
        self._changed = threading.Condition()

    def wait(self, number: int) -> None:
        """Return when it is this thread's turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting[0] == number)

    def next(self) -> None:
        """The turn goes to the next thread, and comes back after all others had theirs."""
        with self._changed:
            self._waiting.append(self._waiting.pop(0))
            self._changed.notify_all()

    def leave(self, number: int) -> None:
        """This thread needs no more turns."""
        with self._changed:
            self._waiting.remove(number)
            self._changed.notify_all()
