"""Killed at a random moment and resumed, every policy ends as if never stopped: weights, losses and timeline.

`benchmarks/kills.py` does the same with any number of seeds.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import kills
import pytest
from kills import CACHES, Kill, check, random_kill
from policies.settings import SETTINGS

from adaptivefreeze.policies import registered_policies

FIRST = [str(SETTINGS[cls][0]) for cls in registered_policies()]


@pytest.mark.parametrize(("seed", "policy"), enumerate(FIRST), ids=lambda value: str(value))
def test_every_policy(tmp_path, seed, policy):
    check(random_kill(seed, policy, CACHES[seed % len(CACHES)]), tmp_path)


@pytest.mark.parametrize("seed", [41, 42])
def test_a_process_that_is_killed(tmp_path, seed):
    def kill_process(kill, folder):
        ended = subprocess.run(
            [sys.executable, kills.__file__, str(folder), str(seed)],
            env={**os.environ, "PYTHONPATH": f"{Path(kills.__file__).parent}:{os.environ.get('PYTHONPATH', '')}"},
            capture_output=True,
        )
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()

    check(random_kill(seed), tmp_path, kill_process)


@pytest.mark.parametrize("cache", ["memory", "passes", "dropout"])
def test_in_the_last_pass(tmp_path, cache):
    """The memory is empty again, and filling it does not pay any more."""
    check(Kill("bottom-up:2", cache, step=22, save_steps=5), tmp_path)


def test_rows_lost_with_the_process_do_not_disable_the_cache(tmp_path):
    check(Kill("linear", "memory", step=14, save_steps=6), tmp_path)
