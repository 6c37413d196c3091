"""search: every depth once, a result each, an answer; the same again does nothing; the test split is touched once."""

import json
from dataclasses import replace

import optuna
import pytest

from adaptivefreeze import RequestError
from adaptivefreeze.comparison import Interrupted, ProgressListener, StudyFolder
from adaptivefreeze.comparison import run as run_module
from adaptivefreeze.errors import StudyFailed
from adaptivefreeze.search import DepthSearch, SearchOptions, search


class Recorder(ProgressListener):
    """Records the events and raises KeyboardInterrupt at the second step of run number `interrupt_at`."""

    def __init__(self, interrupt_at=None):
        self.began, self._interrupt_at = [], interrupt_at

    def run_begins(self, scenario, seed):
        self.began.append((scenario, seed))

    def stepped(self, done, total, remaining):
        if len(self.began) == self._interrupt_at and done == 2:
            raise KeyboardInterrupt


@pytest.fixture
def settings(settings):
    return replace(settings, epochs=1, cache=True)


@pytest.fixture(scope="module")
def found(task, tmp_path_factory):
    """An exhaustive search of four depths, two seeds, with baselines; and what it ran."""
    from adaptivefreeze.comparison import StudySettings

    progress, folder = Recorder(), tmp_path_factory.mktemp("search") / "s"
    settings = StudySettings(epochs=2, batch_size=8, learning_rate=1e-2, device="cpu", cache=True)
    options = SearchOptions(depths=(0, 1, 2, 4), seeds=(0, 1), baselines=("top-down:2", "nothing"))
    return search(task, options, settings=settings, output=folder, progress=progress), progress, options, settings


def trials(answer):
    return optuna.load_study(study_name=answer.study, storage=f"sqlite:///{answer.folder}/study.db").trials


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in (folder / "runs").rglob("*.json")}


def test_each_depth_is_run_once_from_shallow_to_deep_and_the_baselines_last(found):
    answer, progress, *_ = found
    scenarios = ["bottom-up:0", "bottom-up:1", "bottom-up:2", "bottom-up:4", "top-down:2"]
    assert progress.began == [(scenario, seed) for scenario in scenarios for seed in (0, 1)]
    assert {path.name for path in (answer.folder / "runs").iterdir()} == {f"{s}-s{n}.json" for s, n in progress.began}
    assert [outcome.depth for outcome in answer.outcomes] == [0, 1, 2, 4]
    assert [outcome.scenario for outcome in answer.baselines] == ["top-down:2"]
    assert answer.ran == 5


def test_scores_are_those_of_validation_in_the_result_files(found):
    answer, *_ = found
    folder = StudyFolder(answer.folder)
    for outcome in (*answer.outcomes, *answer.baselines):
        runs = [folder.find(outcome.scenario, seed) for seed in (0, 1)]
        assert outcome.scores == tuple(run.validation[-1].macro_f1 for run in runs)
        assert outcome.mean == pytest.approx(sum(outcome.scores) / 2)


def test_best_and_fast_follow_from_the_scores(found):
    answer, *_ = found
    means = {outcome.depth: outcome.mean for outcome in answer.outcomes}
    top = max(means.values())
    assert answer.best.depth == max(depth for depth, mean in means.items() if mean == top)
    assert answer.fast.depth == max(depth for depth, mean in means.items() if mean >= top - 0.005)
    assert sum(outcome.estimate.best for outcome in answer.outcomes) == pytest.approx(1)
    assert all(outcome.estimate.best is None for outcome in answer.baselines)


def test_the_test_split_was_touched_for_the_chosen_depths_alone(found, task):
    answer, *_ = found
    chosen = {answer.best.depth, answer.fast.depth, 0}
    folder = StudyFolder(answer.folder)
    for outcome in (*answer.outcomes, *answer.baselines):
        runs = [folder.find(outcome.scenario, seed) for seed in (0, 1)]
        looked_at = outcome in answer.outcomes and outcome.depth in chosen
        assert all((run.metrics is not None) == looked_at for run in runs), outcome.name
        assert bool(outcome.test) == looked_at
        if looked_at:
            assert outcome.test["macro_f1"] == pytest.approx(sum(run.metrics.macro_f1 for run in runs) / 2)
    kept = {path.name for path in (answer.folder / "models").iterdir()}
    assert kept == {f"bottom-up:{depth}-s{seed}" for depth in chosen for seed in (0, 1)}


def test_the_saved_model_scores_as_the_trained_one_would_have(found, task):
    """Full fine-tuning, once with the test split looked at as it ends."""
    answer, _, _, settings = found
    stored = StudyFolder(answer.folder).find("bottom-up:0", 1)
    again = run_module.run_scenario(task, run_module.Nothing(), 1, settings, model=stored.model)
    assert stored.metrics == again.metrics


def test_rows_are_shared_and_gone_at_the_end(found):
    answer, *_ = found
    folder = StudyFolder(answer.folder)
    first, second, deeper = (
        folder.find(*key).cache_stats for key in (("bottom-up:1", 0), ("bottom-up:1", 1), ("bottom-up:2", 0))
    )
    assert first["misses"] > 0
    assert second["misses"] == deeper["misses"] == 0
    assert deeper["carried"] > 0
    assert not (answer.folder / "rows").exists()


def test_every_trial_has_a_name_attributes_and_a_value_a_seed(found):
    answer, *_ = found
    for trial in trials(answer):
        assert trial.state == optuna.trial.TrialState.COMPLETE
        assert trial.user_attrs["replicates"] == ["seed 0", "seed 1"]
        assert list(trial.intermediate_values.values()) == trial.user_attrs["scores"]
        assert len(trial.user_attrs["train seconds"]) == len(trial.user_attrs["peak memory bytes"]) == 2
    depths = [trial for trial in trials(answer) if trial.user_attrs["role"] == "depth"]
    assert [trial.params for trial in depths] == [{"depth": k, "side": "bottom"} for k in (0, 1, 2, 4)]


def test_the_same_again_does_nothing(found, task):
    answer, _, options, settings = found
    before, written = files(answer.folder), (answer.folder / "search.json").stat().st_mtime_ns
    progress = Recorder()
    again = search(task, options, settings=settings, output=answer.folder, progress=progress)
    assert (progress.began, again.ran, len(trials(answer))) == ([], 0, 5)
    assert again == replace(answer, ran=0)
    assert files(answer.folder) == before
    assert (answer.folder / "search.json").stat().st_mtime_ns == written


def test_the_answer_can_be_read_again(found):
    answer, *_ = found
    read = DepthSearch.from_json(json.loads((answer.folder / "search.json").read_text()))
    assert read == replace(answer, ran=0, folder=None)


def test_more_seeds_run_only_what_is_new(task, settings, tmp_path):
    search(task, SearchOptions(depths=(0, 3), baselines=()), settings=settings, output=tmp_path)
    progress = Recorder()
    more = search(
        task,
        SearchOptions(depths=(0, 3), seeds=(0, 1), baselines=()),
        settings=settings,
        output=tmp_path,
        progress=progress,
    )
    assert progress.began == [("bottom-up:0", 1), ("bottom-up:3", 1)]
    assert all(len(outcome.scores) == 2 for outcome in more.outcomes)


def test_after_ctrl_c_the_same_goes_on(task, settings, tmp_path):
    options = SearchOptions(depths=(0, 2, 4), baselines=())
    with pytest.raises(Interrupted, match="the same command resumes the search"):
        search(task, options, settings=settings, output=tmp_path, progress=Recorder(interrupt_at=2))
    kept = files(tmp_path)
    progress = Recorder()
    answer = search(task, options, settings=settings, output=tmp_path, progress=progress)
    assert sorted(progress.began) == [("bottom-up:2", 0), ("bottom-up:4", 0)]
    assert len(answer.outcomes) == 3
    assert set(kept) < set(files(tmp_path))


def test_a_failed_depth_is_left_out_said_and_run_again(task, settings, tmp_path, monkeypatch):
    original = run_module.run_scenario
    options = SearchOptions(depths=(0, 2, 4), baselines=())

    def fail_one(task, policy, *args, **kwargs):
        if str(policy) == "bottom-up:2":
            raise RuntimeError("the disk is full")
        return original(task, policy, *args, **kwargs)

    with monkeypatch.context() as broken:
        broken.setattr(run_module, "run_scenario", fail_one)
        answer = search(task, options, settings=settings, output=tmp_path)
    assert [outcome.depth for outcome in answer.failures] == [2]
    assert "the disk is full" in answer.failures[0].error
    assert any("2 failed and was not compared" in sentence for sentence in answer.conclusion)
    progress = Recorder()
    mended = search(task, options, settings=settings, output=tmp_path, progress=progress)
    assert progress.began == [("bottom-up:2", 0)]
    assert not mended.failures


def test_when_everything_fails_there_is_no_answer(task, settings, tmp_path):
    wild = replace(settings, learning_rate=1e30)
    with pytest.raises(StudyFailed, match="No training ended: bottom-up:0, seed 0: Training diverged"):
        search(task, SearchOptions(depths=(0,), baselines=()), settings=wild, output=tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depths": (0, 5)}, "depths 5 is out of range: this model has 4 blocks, so give 0 to 4"),
        ({"metric": "f2"}, "metric f2 is not reported; this task has macro_f1, entity_f1, weighted_f1, accuracy, loss"),
        ({"folds": 1}, "--folds 1 is not possible: give a number from 2 to 24"),
        ({"seeds": (1, 1)}, "twice"),
        ({"storage": "postgresql://nobody@127.0.0.1:9/none"}, "does not answer as a storage for Optuna"),
        ({"storage": "no-such-thing://x"}, "does not answer as a storage"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(task, settings, tmp_path, change, words):
    with pytest.raises(RequestError, match=words):
        search(task, SearchOptions(**change), settings=settings, output=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_classification_has_no_entities_to_score(texts, settings, tmp_path):
    with pytest.raises(RequestError, match="this task has macro_f1, weighted_f1, accuracy"):
        search(texts, SearchOptions(metric="entity_f1"), settings=settings, output=tmp_path / "s")


def test_a_study_of_another_task_is_refused_untouched(found, texts, task):
    answer, _, options, settings = found
    url = f"sqlite:///{answer.folder}/study.db"
    before = trials(answer)
    for other, changed, words in (
        (texts, settings, "its task is tags, not texts"),
        (task, replace(settings, epochs=3), "its epochs is 2, not 3"),
    ):
        shared = replace(options, storage=url, study_name=answer.study)
        with pytest.raises(RequestError, match=f"was made for something else.*{words}"):
            search(other, shared, settings=changed, output=answer.folder.parent / "elsewhere")
    with pytest.raises(RequestError, match="its metric is macro_f1, not accuracy"):
        search(task, replace(options, metric="accuracy"), settings=settings, output=answer.folder)
    assert trials(answer) == before
    assert not (answer.folder.parent / "elsewhere").exists()
