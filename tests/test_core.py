"""The library without its extras: it imports and trains, and what needs an extra names it."""

import json
import os
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from test_dependencies import PROJECT, normalized

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "tests" / "core_check.py"
SENTENCE = 'run pip install "adaptivefreeze[lab]".'
HIDE = """
import json, runpy, sys
from importlib.machinery import PathFinder

hidden, find = set(json.loads(sys.argv.pop(1))), PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in hidden else find(name, *rest)
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def core_distributions() -> set[str]:
    """The core's dependencies and theirs."""
    found: set[str] = set()
    waiting = [Requirement(requirement) for requirement in PROJECT["dependencies"]]
    while waiting:
        requirement = waiting.pop()
        name = normalized(requirement.name)
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(name)
            waiting += map(Requirement, requires(requirement.name) or ())
    return found


def check_core(command: list[str], folder: Path, **environment: str) -> None:
    """Run the script, which ends as `adaptivefreeze compare` without the `lab` extra."""
    paths = {"PYTHONPATH": str(REPOSITORY / "tests"), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [*command, str(folder)], capture_output=True, text=True, cwd=folder, env={**os.environ, **paths}, timeout=600
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: The adaptivefreeze command needs the lab extra (")
    assert done.stderr.endswith(f"{SENTENCE}\n")
    assert "Traceback" not in done.stderr


def test_it_imports_and_trains_without_the_packages_of_the_extras(tmp_path):
    core = core_distributions()
    hidden = [m for m, names in packages_distributions().items() if not core & {normalized(name) for name in names}]
    hidden.remove("adaptivefreeze")
    assert {"datasets", "optuna", "sklearn", "matplotlib"} <= set(hidden)
    paths = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))
    check_core([sys.executable, "-c", HIDE, json.dumps(hidden), str(SCRIPT)], tmp_path, PYTHONPATH=paths)
    assert not list(tmp_path.glob("runs"))
