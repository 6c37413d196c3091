"""Runs that advance in turns, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import threading


class Turns:
    """Lets one thread run at a time, in the order of their numbers, until all have left."""

    def __init__(self, count: int) -> None:
        self._waiting = list(range(count))
        self._changed = threading.Condition()

    def wait(self, number: int) -> None:
        """Block until it is the turn of thread `number`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting[0] == number)

    def next(self) -> None:
        """Pass the turn to the next thread; the current one is last in the queue."""
        with self._changed:
            self._waiting.append(self._waiting.pop(0))
            self._changed.notify_all()

    def leave(self, number: int) -> None:
        """Remove thread `number` from the queue."""
        with self._changed:
            self._waiting.remove(number)
            self._changed.notify_all()
