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
PATHS = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))
SENTENCE = 'run pip install "adaptivefreeze[lab]".'
HIDE = """
import json, runpy, sys
from importlib.machinery import PathFinder

hidden, find = set(json.loads(sys.argv.pop(1))), PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in hidden else find(name, *rest)
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def installed_distributions(*extras: str) -> set[str]:
    """The dependencies of the core and of `extras`, and theirs."""
    found: set[str] = set()
    groups = (PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras))
    waiting = [Requirement(requirement) for group in groups for requirement in group]
    while waiting:
        requirement = waiting.pop()
        name = normalized(requirement.name)
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(name)
            waiting += map(Requirement, requires(requirement.name) or ())
    return found


def python_without_the_rest(*extras: str) -> list[str]:
    """A command that runs a script without the packages that only other extras install."""
    installed = installed_distributions(*extras)
    hidden = [m for m, names in packages_distributions().items() if not installed & {normalized(n) for n in names}]
    return [sys.executable, "-c", HIDE, json.dumps([module for module in hidden if module != "adaptivefreeze"])]


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
    command = python_without_the_rest()
    assert {"datasets", "optuna", "sklearn", "matplotlib"} <= set(json.loads(command[-1]))
    check_core([*command, str(SCRIPT)], tmp_path, PYTHONPATH=PATHS)
    assert not list(tmp_path.glob("runs"))


def test_a_depth_is_searched_with_the_search_extra_alone(tmp_path):
    command = [*python_without_the_rest("search"), str(REPOSITORY / "tests" / "search_check.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "best" in done.stdout
