"""The answer of a comparison in one sentence: what to freeze, what it saves, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..comparison.result import RunResult
from ..comparison.statistics import Guessing, Interval
from ..model.mask import FreezeMask
from ..policies import ShortFull
from . import checks
from .row import Row

MARGIN = 0.005
"""A mean loss of up to 0.5 points, or one standard error of the split, can count as the quality of full fine-tuning."""


def answer(rows: Sequence[Row], runs: Sequence[RunResult], *, withheld: bool = False) -> str:
    """Return the answer.

    The recommended scenario is the fastest one that keeps the quality of full fine-tuning on each split: the interval
    of its loss reaches 0, and its mean loss is at most `MARGIN`, or the standard error of a score if that is larger.

    Args:
        rows: One row per scenario.
        runs: The finished runs.
        withheld: Whether the times cannot be trusted.
    """
    full = [run for run in runs if run.full_fine_tuning]
    if not runs:
        return "No run has finished, so there is no answer yet."
    if not full:
        return "There is no answer without a run of full fine-tuning: add the scenario nothing."
    if all(map(checks.learned_nothing, full)):
        counts = full[0].task.label_counts
        guess = Guessing.of(counts.get("test" if full[0].metrics else "validation", {}))
        always = f", as always answering {guess.label} would ({100 * guess.macro_f1:.1f})" if guess else ""
        score = full[0].metrics.macro_f1 if full[0].metrics else full[0].validation[-1].macro_f1
        return (
            f"Nothing was learned: full fine-tuning has a macro F1 of {100 * score:.1f}{always}. Train for more steps "
            "or with a higher learning rate before comparing scenarios."
        )
    others = [row for row in rows if not row.highlighted and row.seeds and (row.loss or row.validation_loss)]
    if not others:
        return "No scenario beside full fine-tuning has finished, so there is no answer yet."
    margins = {split: max(MARGIN, checks.resolution(runs, split) or 0.0) for split in ("validation", "test")}
    kept = [row for row in others if _keeps(row, margins)]
    first = {row.scenario: next(run for run in runs if run.scenario == row.scenario) for row in others}
    if withheld:
        named = ", ".join(row.scenario for row in kept) or "none"
        return (
            "No speedup can be given, because runs that did the same steps took different times. Scenarios that keep "
            f"the quality of full fine-tuning: {named}."
        )
    faster = [row for row in kept if row.gain and row.gain.mean > 1]
    if not faster:
        best = max(others, key=lambda row: _shown(row).mean)
        return (
            "No scenario is faster than full fine-tuning and keeps its quality. Closest in quality: "
            f"{best.scenario}, {_speed(best)}, {_loss(best)}."
        )
    chosen = max(faster, key=lambda row: row.gain.mean if row.gain else 0.0)
    told = "not told apart from full fine-tuning"
    if (low := _shown(chosen).low) is not None and low > 0:
        told = "better than full fine-tuning"
    if len(chosen.seeds) == 1:
        told = f"one seed, so only the test split's resolution ({100 * margins['test']:.1f} points) is known"
    return f"Freeze {frozen_words(first[chosen.scenario])}: {_speed(chosen)}, {_loss(chosen)}; {told}."


def frozen_words(run: RunResult) -> str:
    """Return what a run freezes in words, with its scenario.

    Example:
        `embeddings + 6 of 12 blocks with the cache (bottom-up:6)`
    """
    name, _, ratio = run.scenario.partition(":")
    if name == ShortFull.name:
        return f"nothing, and end the learning-rate schedule after {ratio} of the steps ({run.scenario})"
    caching = run.cache and not (run.cache_stats or {}).get("disabled_reason")
    cached = " with the cache" if caching else ""
    entry = run.timeline[-1] if run.timeline else {}
    if len(run.timeline) != 1 or entry.get("frozen") is None:
        return f"by {run.scenario}{cached}"
    mask = FreezeMask.from_json(entry["frozen"])
    blocks = sorted(mask.blocks)
    last = blocks and blocks == list(range(mask.depth - len(blocks), mask.depth)) and len(blocks) < mask.depth
    parts = ["embeddings"] if mask.embeddings else []
    if blocks:
        parts.append(f"{'the last ' if last else ''}{len(blocks)} of {mask.depth} blocks")
    if not parts:
        return f"by {run.scenario}{cached}"
    return f"{' + '.join(parts)}{cached} ({run.scenario})"


def _keeps(row: Row, margins: Mapping[str, float]) -> bool:
    """Whether no split tells the row apart from full fine-tuning as worse."""
    losses = {"validation": row.validation_loss, "test": row.loss}
    return all(
        loss.mean >= -margins[split] and (loss.high is None or loss.high >= 0)
        for split, loss in losses.items()
        if loss is not None
    )


def _shown(row: Row) -> Interval:
    """The loss that is stated: on the test split if it was used."""
    return row.loss or row.validation_loss or Interval(0.0)


def _speed(row: Row) -> str:
    gain = row.gain
    if gain is None:
        return "speed unknown"
    slower = gain.mean < 1
    mean, low, high = gain.mean, gain.low, gain.high
    if slower:
        mean, low, high = 1 / mean, high and 1 / high, low and 1 / low
    span = "" if low is None or high is None else f" ({low:.1f}–{high:.1f})"
    return f"{mean:.1f}× {'slower' if slower else 'faster'}{span}"


def _loss(row: Row) -> str:
    loss = _shown(row)
    half = "" if loss.high is None else f" ± {100 * (loss.high - loss.mean):.1f}"
    split = "" if row.loss else "validation "
    return f"{split}macro F1 {round(100 * loss.mean, 1) + 0.0:+.1f}{half} points".replace("-", "−")
