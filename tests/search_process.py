"""One process of a search on the tiny task: python search_process.py '{"tiny": ..., "output": ..., ...}'.

It writes one line to `log` when a run begins, and blocks in the middle of run number `hang` until it is killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from adaptivefreeze.comparison import ProgressListener, StudySettings
from adaptivefreeze.data import load_task
from adaptivefreeze.search import SearchOptions, search

SETTINGS = StudySettings(epochs=1, batch_size=8, learning_rate=1e-2, device="cpu", cache=True)


class Log(ProgressListener):
    """Logs each run that begins, and blocks in run number `hang`."""

    def __init__(self, log: Path, hang: int | None = None) -> None:
        self.log, self.hang, self.begun = log, hang, 0

    def run_begins(self, scenario: str, seed: int) -> None:
        self.begun += 1
        with self.log.open("a") as file:
            file.write(f"{scenario} {seed}\n")

    def stepped(self, done: int, total: int, remaining: float | None) -> None:
        if self.begun == self.hang and done == 2:
            Path(f"{self.log}.hangs").touch()
            time.sleep(3600)


def options(storage: str | None = None, seeds: tuple[int, ...] = (0,)) -> SearchOptions:
    """The search of every test here: the depths of the tiny model."""
    return SearchOptions(seeds=seeds, baselines=(), storage=storage, study_name="tiny")


def start(**instructions: object) -> subprocess.Popen[str]:
    """A process that follows `instructions`: tiny, output, log, storage, hang."""
    return subprocess.Popen(
        [sys.executable, __file__, json.dumps(instructions, default=str)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )


def main(tiny: str, output: str, log: str, storage: str | None = None, hang: int | None = None) -> None:
    """Follow the instructions."""
    task = load_task(f"{tiny}/tags", model=f"{tiny}/model", max_length=16)
    search(task, options(storage), settings=SETTINGS, output=output, progress=Log(Path(log), hang))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
