"""compare: every run once, whatever happens in between; nothing at all where the request is wrong."""

import json
from dataclasses import replace

import pytest
import torch

from adaptivefreeze import RequestError
from adaptivefreeze.comparison import FailedRun, Interrupted, ProgressListener, StudyFolder, compare
from adaptivefreeze.comparison import run as run_module

SCENARIOS = ("nothing", "bottom-up:2", "head-only")


@pytest.fixture
def settings(settings):
    return replace(settings, epochs=1)


class Recorder(ProgressListener):
    """Records the events and raises KeyboardInterrupt at a step of run number `interrupt_at`."""

    def __init__(self, interrupt_at=None):
        self.began, self.ended, self.stored, self.remaining, self.warm_ups = [], [], None, [], 0
        self._interrupt_at = interrupt_at

    def study_begins(self, task, runs, stored):
        self.stored = stored

    def warming_up(self):
        self.warm_ups += 1

    def run_begins(self, scenario, seed):
        self.began.append((scenario, seed))

    def stepped(self, done, total, remaining):
        self.remaining.append(remaining)
        if len(self.began) == self._interrupt_at and done == 2:
            raise KeyboardInterrupt

    def run_ended(self, run):
        self.ended.append(run)


def files(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_every_scenario_and_seed_is_run_and_stored(task, settings, tmp_path):
    progress = Recorder()
    done = compare(task, scenarios=SCENARIOS, seeds=(0, 1), settings=settings, output=tmp_path / "s", progress=progress)
    assert progress.began == [(scenario, seed) for seed in (0, 1) for scenario in SCENARIOS]
    assert progress.warm_ups == 1
    assert {path.name for path in (tmp_path / "s" / "runs").iterdir()} == {
        f"{scenario}-s{seed}.json" for scenario, seed in progress.began
    }
    assert (done.ran, len(done.results), done.failures) == (6, 6, ())
    assert sorted(run.order for run in done.results) == list(range(6))
    assert progress.remaining[-1] == pytest.approx(0, abs=1e-6)
    assert all(earlier > 0 for earlier in progress.remaining[:-1])


def test_the_same_again_trains_nothing_and_touches_nothing(task, settings, tmp_path):
    first = compare(task, scenarios=SCENARIOS[:2], settings=settings, output=tmp_path)
    before, progress = files(tmp_path), Recorder()
    again = compare(task, scenarios=SCENARIOS[:2], settings=settings, output=tmp_path, progress=progress)
    assert (again.ran, progress.began, progress.warm_ups, progress.stored) == (0, [], 0, 2)
    assert files(tmp_path) == before
    assert [json.dumps(run.to_json()) for run in again.results] == [json.dumps(run.to_json()) for run in first.results]


def test_more_scenarios_and_seeds_join_what_is_there(task, settings, tmp_path):
    compare(task, scenarios=["nothing"], settings=settings, output=tmp_path)
    progress = Recorder()
    joined = compare(
        task, scenarios=["head-only,nothing"], seeds=(0, 1), settings=settings, output=tmp_path, progress=progress
    )
    assert progress.began == [("head-only", 0), ("head-only", 1), ("nothing", 1)]
    assert len(joined.results) == 4


def test_force_runs_again_what_is_asked_for_alone(task, settings, tmp_path):
    compare(task, scenarios=SCENARIOS[:2], settings=settings, output=tmp_path)
    before, progress = files(tmp_path / "runs"), Recorder()
    compare(task, scenarios=["bottom-up:2"], settings=settings, output=tmp_path, force=True, progress=progress)
    after = files(tmp_path / "runs")
    assert progress.began == [("bottom-up:2", 0)]
    assert {path.name for path in after if after[path] != before[path]} == {"bottom-up:2-s0.json"}


def test_a_result_does_not_depend_on_what_ran_before_it(task, settings, tmp_path):
    compare(task, scenarios=SCENARIOS, settings=settings, output=tmp_path / "all")
    compare(task, scenarios=["head-only"], settings=settings, output=tmp_path / "one")
    among, alone = (StudyFolder(tmp_path / name).find("head-only", 0) for name in ("all", "one"))
    assert (among.train_loss, among.metrics, among.order) == (alone.train_loss, alone.metrics, 2)


def test_after_ctrl_c_the_same_command_goes_on(task, settings, tmp_path):
    with pytest.raises(Interrupted, match=r"1 of 3 runs are kept in .*; run the same command again to continue"):
        compare(task, scenarios=SCENARIOS, settings=settings, output=tmp_path, progress=Recorder(interrupt_at=2))
    kept = files(tmp_path / "runs")
    assert [path.name for path in kept] == ["nothing-s0.json"]
    progress = Recorder()
    done = compare(task, scenarios=SCENARIOS, settings=settings, output=tmp_path, progress=progress)
    assert progress.began == [("bottom-up:2", 0), ("head-only", 0)]
    assert len(done.results) == 3
    assert kept.items() <= files(tmp_path / "runs").items()


def test_a_failed_run_is_recorded_the_others_go_on_and_it_is_run_again(task, settings, tmp_path, monkeypatch):
    original = run_module.run_scenario

    def fail_one(task, policy, *args, **kwargs):
        if str(policy) == "bottom-up:2":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(task, policy, *args, **kwargs)

    with monkeypatch.context() as broken:
        broken.setattr(run_module, "run_scenario", fail_one)
        done = compare(task, scenarios=SCENARIOS, settings=settings, output=tmp_path)
    assert [run.scenario for run in done.failures] == ["bottom-up:2"]
    assert {run.scenario for run in done.results} == {"nothing", "head-only"}
    stored = json.loads((tmp_path / "runs" / "bottom-up:2-s0.json").read_text())
    assert stored["status"] == "failed"
    assert stored["error"].startswith("Out of memory")
    before, progress = files(tmp_path), Recorder()
    mended = compare(task, scenarios=SCENARIOS, settings=settings, output=tmp_path, progress=progress)
    assert progress.began == [("bottom-up:2", 0)]
    assert (len(mended.results), mended.failures) == (3, ())
    changed = {path.name for path, when in files(tmp_path).items() if before[path] != when}
    assert changed == {"bottom-up:2-s0.json"}


def test_diverged_training_is_a_failed_run(task, settings, tmp_path):
    wild = replace(settings, learning_rate=1e30)
    done = compare(task, scenarios=["nothing"], settings=wild, output=tmp_path)
    assert isinstance(done.failures[0], FailedRun)
    assert "Training diverged" in done.failures[0].error


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scenarios": ["bottom-up:5"]}, "depth 5 is out of range"),
        ({"scenarios": ["no-such"]}, "unknown policy 'no-such'; the known ones are nothing, bottom-up"),
        ({"scenarios": ["modules:zzz"]}, "no parameter's name matches"),
        ({"scenarios": ["modules:."]}, "leaves no parameter of this model to train"),
        ({"scenarios": []}, "no scenario"),
        ({"seeds": ()}, "seeds nothing"),
        ({"seeds": (1, 1)}, "twice"),
        ({"seeds": (2**40,)}, "pass integers"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(task, settings, tmp_path, change, words):
    request = {"scenarios": SCENARIOS, "seeds": (0,), **change}
    with pytest.raises(RequestError, match=words):
        compare(task, **request, settings=settings, output=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_another_study_is_refused_before_anything_is_written(task, texts, settings, tmp_path):
    compare(task, scenarios=["head-only"], settings=settings, output=tmp_path)
    before = files(tmp_path)
    for other, changed, words in (
        (texts, settings, "its task is tags, not texts"),
        (task, replace(settings, epochs=2), "its epochs is 1, not 2"),
    ):
        for force in (False, True):
            with pytest.raises(RequestError, match=words):
                compare(other, scenarios=["nothing"], settings=changed, output=tmp_path, force=force)
    assert files(tmp_path) == before


@pytest.mark.parametrize("spec", ["validation:metric=f1", "validation:metric=eval_f1+ceiling:2"])
def test_the_metric_of_a_policy_is_checked_before_training(task, settings, tmp_path, spec):
    with pytest.raises(RequestError, match=r"f1 is not reported; this task has macro_f1, .*\. Did you mean macro_f1\?"):
        compare(task, scenarios=[spec], settings=settings, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Timed:
    """`run_scenario` with the training time of each scenario given, as a share of 100 s."""

    def __init__(self, shares):
        self.shares, self.original = shares, run_module.run_scenario

    def __call__(self, task, policy, *args, **kwargs):
        run = self.original(task, policy, *args, **kwargs)
        return replace(run, train_seconds=100.0 * self.shares.get(str(policy), 1.0))


def test_each_time_that_scenarios_save_is_given_to_full_fine_tuning_with_a_shorter_schedule(
    task, settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(run_module, "run_scenario", Timed({"bottom-up:1": 0.68, "bottom-up:2": 0.52, "head-only": 0.5}))
    request = {"scenarios": ["bottom-up:1", "bottom-up:2", "head-only"], "settings": settings, "output": tmp_path}
    with pytest.raises(Interrupted, match="5 of 6 runs are kept"):
        compare(task, **request, short_full=True, progress=Recorder(interrupt_at=6))
    progress = Recorder()
    done = compare(task, **request, short_full=True, progress=progress)
    assert progress.began == [("short-full:0.5", 0)]
    steps = {run.scenario: run.steps for run in done.results}
    assert steps.keys() == {"nothing", "bottom-up:1", "bottom-up:2", "head-only", "short-full:0.7", "short-full:0.5"}
    assert steps["short-full:0.5"] == round(0.5 * steps["nothing"])
    assert steps["short-full:0.7"] == round(0.7 * steps["nothing"])
    assert StudyFolder(tmp_path).missing(done.results) == []


def test_a_shorter_schedule_is_no_control_of_runs_of_equal_time(task, settings, tmp_path):
    with pytest.raises(RequestError, match="--short-full needs --match steps"):
        compare(task, settings=replace(settings, match="time"), output=tmp_path / "s", short_full=True)
    assert not (tmp_path / "s").exists()
