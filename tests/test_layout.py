"""The package layout: imports run downwards only, without cycles, and the library does not import the laboratory."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "adaptivefreeze"
LAYERS = (
    *("errors", "extras", "model", "policies", "cache", "signals", "side", "trainer"),
    *("meters", "data", "comparison", "search", "report", "cli"),
)
LIBRARY = LAYERS[: LAYERS.index("trainer") + 1]
# The package itself and `python -m` export what lies below them; `testing` serves the tests of users' policies.
TOP_LEVEL = ("__init__", "__main__", "testing")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def imported_modules(name: str) -> set[str]:
    """Modules of this package that `name` imports anywhere: at its top, in a function, or under TYPE_CHECKING."""
    path = MODULES[name]
    parents = path.relative_to(ROOT).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*parents[: len(parents) - node.level + 1], *(node.module or "").split(".")]
            for alias in node.names:
                whole, parent = (".".join(filter(None, parts)) for parts in ([*base, alias.name], base))
                found.add(whole if whole in MODULES else parent)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not any(one.split(".")[0] == "adaptivefreeze" for one in names), f"{path}: use relative imports"
    return found - {name}


def layer(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("name", [name for name in MODULES if name not in TOP_LEVEL])
def test_imports_run_downwards(name):
    upwards = [to for to in imported_modules(name) if LAYERS.index(layer(to)) > LAYERS.index(layer(name))]
    assert not upwards


def test_no_module_imports_itself_through_others():
    graph = {name: imported_modules(name) for name in MODULES if name not in TOP_LEVEL}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_package_imports_the_laboratory_only_on_demand():
    tree = ast.parse(MODULES["__init__"].read_text())
    imported = [node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom) and node.level]
    assert {layer(module) for module in imported} <= {*LIBRARY}
