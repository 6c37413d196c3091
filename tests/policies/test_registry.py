"""The registry: decorator, discovery of modules, plugins by name and by entry point."""

import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest

from adaptivefreeze import AutoFreeze, BottomUp, FreezeCallback, FreezeMask, RequestError, parse_policy, policies
from adaptivefreeze.comparison import scenarios
from adaptivefreeze.comparison.scenarios import expand
from adaptivefreeze.policies import AdaptivePolicy, Policy, load_plugins, register_policy, registered_policies, registry

SOURCE = '''
from dataclasses import dataclass
from adaptivefreeze import FreezeMask
from adaptivefreeze.policies import Policy, register_policy

@register_policy
@dataclass(frozen=True)
class Middle(Policy):
    """Freezes one block."""

    name = "{name}"
    index: int
    label: str = "x"

    def initial_mask(self, stack):
        return FreezeMask(stack.depth, blocks=[self.index])
'''


@pytest.fixture(autouse=True)
def _separate_registry(monkeypatch):
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.setattr(registry, "_loaded_entry_points", set())


def mask(self, stack):
    return FreezeMask(stack.depth)


def made(name, base=Policy, **members):
    return type("Made", (base,), {"name": name, "initial_mask": mask, **members})


def test_a_registered_policy_has_a_spec():
    cls = register_policy(dataclass(made("my-policy2", __annotations__={"k": int})))
    assert parse_policy("my-policy2:3") == cls(3)
    assert str(cls(3)) == "my-policy2:3"
    assert expand(["nothing,my-policy2:3"], 4)[1] == cls(3)
    assert registered_policies()[-1] is cls, "after the built-in ones"


def test_the_order_of_the_built_in_policies_is_fixed():
    names = [cls.name for cls in registered_policies()]
    assert names[:6] == ["nothing", "bottom-up", "top-down", "interleaved", "head-only", "modules"]
    assert names[6:12] == ["semifreddo", "dimensions", "weight-freezing", "embedding-rows", "rates", "autofreeze"]
    assert names[-3:] == ["budget", "short-full", "side"]
    assert tuple(names) == registry._ORDER


def test_an_adaptive_one_without_required_arguments_is_in_the_set():
    update = {"update": lambda self, signals: None}
    cls = register_policy(dataclass(made("slow", AdaptivePolicy, **update)))
    assert expand(["adaptive"], 4)[-1] == cls()


@pytest.mark.parametrize(
    ("cls", "error", "sentence"),
    [
        (int, TypeError, "derive it from Policy or AdaptivePolicy"),
        (made("plain"), TypeError, "it is no dataclass; put @dataclass below the decorator"),
        (dataclass(made("bottom-up")), ValueError, "this is the name of adaptivefreeze.policies.static.BottomUp"),
        (dataclass(made("a b")), ValueError, "holds letters, digits and hyphens"),
        (dataclass(made("a:b")), ValueError, "holds letters, digits and hyphens"),
        (dataclass(made("2nd")), ValueError, "starts with a letter"),
        (dataclass(made(None)), ValueError, "cannot be registered as None"),
        (dataclass(made("paper")), ValueError, "another meaning in specs"),
        (dataclass(made("floor")), ValueError, "another meaning in specs"),
    ],
)
def test_what_cannot_have_a_spec_is_refused(cls, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        register_policy(cls)
    assert "\n" not in str(caught.value)


def test_names_of_sets_are_reserved():
    assert {*scenarios._SETS} <= {*registry.RESERVED_NAMES}


def test_a_class_that_is_defined_again_replaces_itself():
    first, second = (dataclass(made("again")) for _ in range(2))
    register_policy(first)
    register_policy(second)
    assert type(parse_policy("again")) is second


def test_a_policy_in_a_file_of_the_package_is_found(tmp_path, monkeypatch):
    (tmp_path / "middle_one.py").write_text(SOURCE.format(name="middle-one"))
    monkeypatch.setattr(policies, "__path__", [*policies.__path__, str(tmp_path)])
    registry.discover(policies.__name__, policies.__path__)
    monkeypatch.delitem(sys.modules, "adaptivefreeze.policies.middle_one")
    assert str(parse_policy("middle-one:2,label=a")) == "middle-one:2,label=a"


def test_plugins_are_imported_by_name(tmp_path, monkeypatch):
    (tmp_path / "my_plugin.py").write_text(SOURCE.format(name="from-plugin"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RequestError, match="unknown policy 'from-plugin'"):
        parse_policy("from-plugin:1")
    load_plugins(["my_plugin"])
    load_plugins(["my_plugin"])
    assert str(parse_policy("from-plugin:1")) == "from-plugin:1"
    monkeypatch.delitem(sys.modules, "my_plugin")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("1 / 0", r"plugin 'broken' cannot be imported \(ZeroDivisionError: division by zero\)"),
        (SOURCE.format(name="bottom-up"), "plugin 'broken' cannot be imported .*this is the name of"),
    ],
)
def test_a_broken_plugin_is_one_sentence(tmp_path, monkeypatch, source, sentence):
    (tmp_path / "broken.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RequestError, match=sentence) as caught:
        load_plugins(["broken"])
    assert "\n" not in str(caught.value)


def test_a_plugin_that_is_missing_is_one_sentence():
    with pytest.raises(RequestError, match=r"plugin 'no_such_module' cannot be imported .*No module named"):
        load_plugins(["no_such_module"])


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a plugin: its source, as an entry point."""

    def install(source):
        (tmp_path / "installed_plugin.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        found = (EntryPoint("mine", "installed_plugin", registry.ENTRY_POINTS),)
        monkeypatch.setattr(registry, "entry_points", lambda group: found)

    yield install
    sys.modules.pop("installed_plugin", None)


def test_installed_plugins_are_found_without_being_named(installed):
    installed(SOURCE.format(name="installed"))
    assert str(parse_policy("installed:1")) == "installed:1"
    assert registered_policies()[-1].name == "installed"


def test_a_broken_installed_plugin_is_named_and_leaves_built_in_specs_alone(installed):
    installed("import no_such_module")
    assert str(parse_policy("bottom-up:3")) == "bottom-up:3"
    with pytest.raises(RequestError, match=r"plugin 'mine' cannot be imported .*repair or uninstall it"):
        parse_policy("installed:1")


def test_what_is_neither_a_policy_nor_a_spec_is_refused():
    with pytest.raises(RequestError, match="a Policy object or as a spec such as 'bottom-up:6', not as <class"):
        parse_policy(object)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (3, r"3 is no policy: BottomUp\(3\), or 'bottom-up:3', freezes 3 blocks\."),
        (BottomUp, r"BottomUp is the class of a policy: create one, BottomUp\(k\)\."),
        (AutoFreeze, r"AutoFreeze is the class of a policy: create one, AutoFreeze\(\)\."),
        (None, "a policy is given as a Policy object or as a spec such as 'bottom-up:6', not as None"),
    ],
    ids=str,
)
def test_what_is_no_policy_is_refused_with_advice(given, sentence):
    with pytest.raises(RequestError, match=sentence):
        FreezeCallback(given)
