"""The conclusion of a search in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from ..comparison.statistics import t_interval
from .result import DepthSearch, Outcome
from .trials import Replicate, counted

CHANCE = 0.01
"""A best score up to one point above that of guessing means that nothing was learned."""


def conclude(found: DepthSearch, untried: str | None = None) -> tuple[str, ...]:
    """Return the conclusion in sentences; `untried` is one about the depths that were not tried.

    Scores of a maximized metric are given in percent, those of a minimized one as they are.
    """
    best, fast, greater = found.best, found.fast, found.greater_is_better

    def text(score: float) -> str:
        return f"{100 * score:.2f}" if greater else f"{score:.4g}"

    number = counted([Replicate.parse(replicate) for replicate in found.replicates])
    kind, extreme = ("candidate", "fastest") if best.depth is None else ("k", "deepest")
    margin = f"{100 * found.tolerance:g} points" if greater else f"{found.tolerance:g}"
    within = f"the {extreme} within {margin} of it"
    also = f"it is also {within}{_speed(best, ', ')}"
    if fast.name != best.name:
        also = f"{within} is {fast.label} ({text(fast.mean)}{_speed(fast, ', ')})"
    sentences = []
    if found.guessing is not None and greater and best.mean <= found.guessing + CHANCE:
        sentences.append(
            f"Nothing was learned: the best score is {text(best.mean)}, and always answering the most frequent label "
            f"has {text(found.guessing)}. Train for more steps or with a higher learning rate."
        )
    sentences += [
        f"The best {kind} is {best.label} ({text(best.mean)}); {also}.",
        _separation(found.outcomes, best, number),
    ]
    if pruned := [outcome for outcome in found.outcomes if outcome.pruned]:
        sentences.append(
            f"{_listed(pruned)} {_were(pruned)} pruned before the last of {number}: clearly worse on those that ran."
        )
    if failed := [outcome for outcome in found.outcomes if outcome.error is not None]:
        sentences.append(f"{_listed(failed)} failed and {_were(failed)} not compared.")
    if untried is not None:
        sentences.append(untried)
    if known := [outcome for outcome in found.baselines if outcome.estimate is not None]:
        rival = (max if greater else min)(known, key=lambda outcome: outcome.mean)
        by = best.mean - rival.mean
        speed = f", {rival.speedup:.1f}× full fine-tuning's speed" if rival.speedup else ""
        sentences.append(
            f"The best baseline is {rival.name} ({text(rival.mean)}{speed}); "
            f"k* is {text(abs(by))} {'above' if by >= 0 else 'below'} it."
        )
    return tuple(sentences)


def ranges(numbers: Sequence[int]) -> str:
    """Return the numbers in words, such as `0 to 2, 4, 6 and 7`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [p for run in runs for p in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def _separation(outcomes: Sequence[Outcome], best: Outcome, number: str) -> str:
    """The outcomes whose paired difference from the best one can be chance."""
    if best.estimate is None or best.estimate.low is None:
        return (
            "With one seed no interval can be given, so how much of a difference is chance is unknown. Give more "
            "seeds, or --folds."
        )
    near = [outcome for outcome in outcomes if _tied(outcome, best)]
    if len(near) == 1:
        return f"{best.label} is told apart from every other with {number}."
    fastest = max(near, key=lambda outcome: outcome.speedup or 0.0)
    faster = _speed(fastest, f"; {fastest.label} is ")
    return f"{_listed(near)} cannot be told apart with {number}{faster}."


def _tied(outcome: Outcome, best: Outcome) -> bool:
    """Whether the paired interval of the difference between two complete outcomes contains 0."""
    if not outcome.complete or len(outcome.scores) != len(best.scores):
        return False
    pairs = zip(outcome.scores, best.scores, strict=True)
    return outcome.name == best.name or t_interval([one - other for one, other in pairs]).contains(0.0)


def _listed(outcomes: Sequence[Outcome]) -> str:
    depths = [outcome.depth for outcome in outcomes if outcome.depth is not None]
    return ranges(depths) if len(depths) == len(outcomes) else ", ".join(outcome.name for outcome in outcomes)


def _were(outcomes: Sequence[Outcome]) -> str:
    return "was" if len(outcomes) == 1 else "were"


def _speed(outcome: Outcome, before: str) -> str:
    """`2.1× faster than full fine-tuning` after `before`; empty for full fine-tuning, or where it was not run."""
    if outcome.speedup is None or outcome.full_fine_tuning:
        return ""
    slower = outcome.speedup < 1
    factor = 1 / outcome.speedup if slower else outcome.speedup
    return f"{before}{factor:.1f}× {'slower' if slower else 'faster'} than full fine-tuning"
