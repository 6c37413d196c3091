"""The first sentence of a report: what is recommended, and when nothing is."""

from dataclasses import replace

import pytest
from results import MODEL, TASK, UNFROZEN, failed, made

from adaptivefreeze import FreezeMask, Timeline
from adaptivefreeze.model.timeline import Change
from adaptivefreeze.report.answer import frozen_words
from adaptivefreeze.report.summary import summarize_runs


def study(**scenarios):
    """Runs of `nothing` in 20 s and of other scenarios: name=(seconds, macro F1 of each seed)."""
    scores = {"nothing": (20.0, (0.90, 0.91, 0.92)), **scenarios}
    return [
        made(name, seed, seconds=seconds + seed / 10, macro_f1=f1, curve=((seconds, f1),))
        for name, (seconds, found) in scores.items()
        for seed, f1 in enumerate(found)
    ]


def said(*runs):
    return summarize_runs(runs).answer


def test_the_fastest_scenario_that_keeps_the_quality_is_recommended():
    runs = study(**{
        "bottom-up:1": (15.0, (0.90, 0.91, 0.92)),
        "bottom-up:2": (10.0, (0.899, 0.905, 0.923)),
        "bottom-up:3": (5.0, (0.80, 0.81, 0.82)),
    })  # fmt: skip
    assert said(*runs) == (
        "Freeze embeddings + 2 of 4 blocks (bottom-up:2): 2.0× faster (2.0–2.0), macro F1 −0.1 ± 1.0 points; not told "
        "apart from full fine-tuning."
    )


def test_a_shorter_full_fine_tuning_is_recommended_as_what_it_is():
    runs = study(**{"bottom-up:2": (10.0, (0.80, 0.81, 0.82)), "short-full:0.5": (10.0, (0.90, 0.91, 0.92))})
    assert said(*runs).startswith(
        "Freeze nothing, and end the learning-rate schedule after 0.5 of the steps (short-full:0.5): 2.0× faster"
    )


def test_a_large_loss_with_a_wide_interval_is_not_taken_for_none():
    runs = study(**{"bottom-up:3": (5.0, (0.70, 0.91, 0.80))})
    assert summarize_runs(runs).rows[1].loss.high > 0
    assert said(*runs).startswith("No scenario is faster than full fine-tuning and keeps its quality. Closest")


def test_a_small_loss_beyond_chance_is_a_loss():
    runs = study(**{"bottom-up:2": (10.0, (0.897, 0.907, 0.917))})
    assert said(*runs) == (
        "No scenario is faster than full fine-tuning and keeps its quality. Closest in quality: bottom-up:2, 2.0× "
        "faster (2.0–2.0), macro F1 −0.3 ± 0.0 points."
    )


def test_a_scenario_must_keep_the_quality_on_both_splits():
    runs = study(**{"bottom-up:2": (10.0, (0.90, 0.91, 0.92))})
    worse = [replace(run, validation=tuple(replace(p, macro_f1=0.5) for p in run.validation)) for run in runs[3:]]
    assert said(*runs[:3], *worse).startswith("No scenario")


def test_a_slower_scenario_is_not_recommended():
    assert said(*study(**{"top-down:1": (25.0, (0.90, 0.91, 0.92))})).endswith(
        "Closest in quality: top-down:1, 1.2× slower (1.2–1.3), macro F1 +0.0 ± 0.0 points."
    )


def test_one_seed_has_no_interval_and_the_resolution_is_named():
    task = replace(TASK, label_counts={"test": {"O": 500, "B-LOC": 50}, "validation": {"O": 500, "B-LOC": 50}})
    full, frozen = made("nothing", seconds=20.0, task=task), made("bottom-up:2", task=task, macro_f1=0.79)
    assert said(full, frozen) == (
        "Freeze embeddings + 2 of 4 blocks (bottom-up:2): 2.0× faster, macro F1 −1.0 points; one seed, so only the "
        "test split's resolution (3.0 points) is known."
    )


def test_nothing_learned_comes_before_any_recommendation():
    counts = {"O": 80, "B-LOC": 20}
    task = replace(TASK, label_counts={"test": counts, "validation": counts})
    metrics = replace(made().metrics, accuracy=0.8, macro_f1=0.45)
    runs = [
        made(name, seconds=seconds, task=task, metrics=metrics)
        for name, seconds in (("nothing", 20.0), ("bottom-up:2", 10.0))
    ]
    summary = summarize_runs(runs)
    assert summary.answer.startswith(
        "Nothing was learned: full fine-tuning has a macro F1 of 45.0, as always answering"
    )
    assert "All of 2 runs learned nothing (nothing, bottom-up:2)" in summary.warnings[0]


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([failed()], "No run has finished, so there is no answer yet."),
        ([made()], "There is no answer without a run of full fine-tuning: add the scenario nothing."),
        ([made("nothing"), failed()], "No scenario beside full fine-tuning has finished, so there is no answer yet."),
    ],
)
def test_a_study_without_an_answer_says_why(runs, words):
    assert said(*runs) == words


@pytest.mark.parametrize(
    ("scenario", "mask", "words"),
    [
        ("bottom-up:2", FreezeMask.first(4, 2), "embeddings + 2 of 4 blocks (bottom-up:2)"),
        ("top-down:1", FreezeMask(4, blocks=[3]), "the last 1 of 4 blocks (top-down:1)"),
        ("nothing", FreezeMask(4), "by nothing"),
    ],
)
def test_a_static_scenario_is_described_by_its_mask(scenario, mask, words):
    timeline = tuple(Timeline([Change(0, mask, "static")]).to_json())
    assert frozen_words(made(scenario, timeline=timeline)) == words


def test_the_cache_is_named_unless_it_was_disabled():
    stats = {"disabled_reason": None}
    assert "blocks with the cache (" in frozen_words(made(cache=True, cache_stats=stats))
    assert "cache" not in frozen_words(made(cache=True, cache_stats={"disabled_reason": "one epoch only"}))
    assert frozen_words(made("linear", timeline=(*UNFROZEN, *UNFROZEN), cache=True)) == "by linear with the cache"
    assert MODEL.blocks == 4
