"""Stored results with anything in them: they are reported, or refused with one sentence."""

import json
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from results import failed, folder_of, made, searched

from adaptivefreeze import RequestError
from adaptivefreeze.comparison.folder import StudyFolder
from adaptivefreeze.comparison.result import read_run
from adaptivefreeze.report.formats import as_csv, latex, markdown
from adaptivefreeze.report.load import load_runs, load_search
from adaptivefreeze.report.page import render
from adaptivefreeze.report.publish import write_figures

FAST = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NESTED = "[" * 100_000

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 10**12, 2**63, 10**400, 1e308, -1e308, 5e-324, float("nan"), float("inf")]),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.none() | st.integers(0, 3), max_size=3),
)


@cache
def paths(name):
    """Every place in a stored result, as a tuple of keys."""

    def below(value, path=()):
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [path, *(found for key, item in entries for found in below(item, (*path, key)))]

    return below(stored(name))[1:]


def stored(name):
    run = made(cache=True, cache_stats={"hits": 3, "disabled_reason": None, "hit_rate": 1.0})
    value = {"run": run, "failed": failed(), "search": searched()}[name].to_json()
    return json.loads(json.dumps(value))


def changed(value, path, item):
    """Put `item` at `path` of `value`, or delete the entry for `...`."""
    *above, last = path
    holder = value
    for key in above:
        holder = holder[key]
    if item is ...:
        del holder[last]
    else:
        holder[last] = item
    return value


def reported(summaries):
    """All text of a report."""
    return markdown(summaries), as_csv(summaries), latex(summaries), render(summaries)


@pytest.mark.parametrize("name", ["run", "failed"])
def test_a_run_with_one_entry_changed_is_reported_or_refused(tmp_path, name):
    folder_of(tmp_path, made("nothing", seed=1), made("head-only", seed=3))

    @FAST
    @given(path=st.sampled_from(paths(name)), item=st.just(...) | VALUES)
    def check(path, item):
        file = tmp_path / "runs" / "odd.json"
        file.write_text(json.dumps(changed(stored(name), path, item)))
        try:
            summaries = load_runs([tmp_path])
        except RequestError:
            return
        reported(summaries)

    check()


def test_a_search_with_one_entry_changed_is_reported_or_refused(tmp_path):
    @FAST
    @example(path=("outcomes", 0, "estimate", "mean"), item=10**308)
    @given(path=st.sampled_from(paths("search")), item=st.just(...) | VALUES)
    def check(path, item):
        (tmp_path / "search.json").write_text(json.dumps(changed(stored("search"), path, item)))
        try:
            summary = load_search(tmp_path)
        except RequestError:
            return
        reported([summary])

    check()


@pytest.mark.parametrize("path", [path for path in paths("run") if len(path) == 1], ids=lambda path: path[0])
@pytest.mark.parametrize("item", [..., None, "x", [[]], {"a": {}}, -1, 2**64], ids=repr)
def test_every_field_of_a_run_is_checked(tmp_path, path, item):
    value = changed(stored("run"), path, item)
    (tmp_path / "odd.json").write_text(json.dumps(value))
    said = f"{tmp_path / 'odd.json'} is not a result that this version can read"
    try:
        refused = ""
        assert read_run(tmp_path / "odd.json").scenario
    except RequestError as error:
        refused = str(error)
    assert not refused or refused.startswith(said)
    assert "\n" not in refused


@pytest.mark.parametrize(
    ("path", "item", "words"),
    [
        (("validation",), ..., "validation: field required"),
        (("validation", 0, "macro_f1"), "0.7", "validation.0.macro_f1: input should be a valid number"),
        (("task",), "towns", "task: input should be an object"),
        (("train_seconds",), 0, "train_seconds: input should be greater than"),
        (("timeline", 0, "frozen", "depth"), 10**9, "the mask at step 0 cannot be read"),
        (("timeline", 0, "mask"), None, "0.mask: input should be a valid string"),
        (("cache_stats",), {"hit_rate": "all"}, "hit_rate: input should be a valid number"),
    ],
)
def test_the_sentence_names_the_field(tmp_path, path, item, words):
    (tmp_path / "odd.json").write_text(json.dumps(changed(stored("run"), path, item)))
    with pytest.raises(RequestError, match=words):
        read_run(tmp_path / "odd.json")


@pytest.mark.parametrize("text", [NESTED, '{"schema": 1, "seed": ' + "9" * 5000 + "}", '{"schema": NaN}', "\ud800"])
@pytest.mark.parametrize("name", ["runs/odd.json", "search.json", "study.json"])
def test_json_that_python_cannot_hold_is_refused(tmp_path, name, text):
    file = folder_of(tmp_path, made()) / name
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    study = StudyFolder(tmp_path)
    with pytest.raises(RequestError, match=file.name.replace(".", r"\.")):
        {"runs/odd.json": study.runs, "search.json": lambda: load_search(tmp_path), "study.json": lambda: claim(study)}[
            name
        ]()


def claim(study):
    from results import MODEL, TASK

    from adaptivefreeze.comparison.settings import StudySettings

    study.claim(TASK, MODEL, StudySettings())


@FAST
@given(st.binary(max_size=200))
def test_bytes_are_no_result(tmp_path, data):
    (tmp_path / "odd.json").write_bytes(data)
    with pytest.raises(RequestError):
        read_run(tmp_path / "odd.json")


@pytest.mark.parametrize("part", ["task", "model", "settings"])
def test_a_study_of_wrong_types_is_refused(tmp_path, part):
    marker = folder_of(tmp_path) / "study.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), part: [3]}))
    with pytest.raises(RequestError, match=r"study\.json does not describe a study"):
        claim(StudyFolder(tmp_path))


def test_a_validation_before_the_first_step_is_drawn(tmp_path):
    """An evaluation at the start of training has taken no time."""
    runs = [made("nothing", curve=((0.0, 0.8), (9.0, 0.8))), made(curve=((0.0, 0.8), (5.0, 0.8)))]
    summaries = load_runs([folder_of(tmp_path, runs[0], replace(runs[1], scenario="bottom-up:²"))])
    reported(summaries)
    write_figures(summaries, tmp_path / "figures")
