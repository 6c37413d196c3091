"""What a search says in sentences: what was found, and how far it can be told from the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..comparison.scenarios import UNFROZEN

if TYPE_CHECKING:
    from .result import Outcome


def conclude(
    outcomes: Sequence[Outcome], best: Outcome, fast: Outcome, *, counted: str, tolerance: float, units: int
) -> tuple[str, ...]:
    """The sentences. `counted` is `3 seeds` or `5 folds`, `units` how many scores a candidate has at most."""
    label = "k" if best.depth is not None else "candidate"
    said = [f"The best {label} is {short(best)} ({_points(best.mean)}); {_chosen(best, fast, tolerance)}."]
    said.append(_apart(outcomes, best, counted, units))
    pruned = [outcome for outcome in outcomes if outcome.pruned]
    if pruned:
        said.append(
            f"{_listed(pruned)} {_were(pruned)} given up before the last of {counted}: clearly worse on those run."
        )
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if failed:
        said.append(f"{_listed(failed)} failed and {_were(failed)} not compared.")
    return tuple(said)


def short(outcome: Outcome) -> str:
    """A depth by its number, anything else by its name."""
    return str(outcome.depth) if outcome.depth is not None else outcome.name


def ranges(numbers: Sequence[int]) -> str:
    """The numbers in words.

    >>> ranges([0, 1, 2, 4, 6, 7])
    '0 to 2, 4, 6 and 7'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [p for run in runs for p in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def _apart(outcomes: Sequence[Outcome], best: Outcome, counted: str, units: int) -> str:
    if units < 2:
        return (
            "With one seed no interval can be given: how much of a difference is chance is not known. Give more seeds, "
            "or --folds."
        )
    whole = [o for o in outcomes if o.certainty is not None and o.certainty.low is not None]
    assert best.certainty is not None
    near = [o for o in whole if o.certainty is not None and o.certainty.overlaps(best.certainty)]
    if len(near) == 1:
        return f"The interval of {short(best)} overlaps no other with {counted}."
    fastest = max(near, key=lambda outcome: outcome.speedup or 0.0)
    sentence = f"{_listed(near)} cannot be told apart with {counted}"
    faster = _speed(fastest).removeprefix(", ")
    return f"{sentence}; {short(fastest)} is {faster}." if faster else f"{sentence}."


def _chosen(best: Outcome, fast: Outcome, tolerance: float) -> str:
    lead = "the deepest" if best.depth is not None else "the fastest"
    within = f"{lead} within {100 * tolerance:g} points of it"
    if fast.name == best.name:
        return f"it is also {within}{_speed(best)}"
    return f"{within} is {short(fast)} ({_points(fast.mean)}{_speed(fast)})"


def _listed(outcomes: Sequence[Outcome]) -> str:
    depths = [outcome.depth for outcome in outcomes if outcome.depth is not None]
    return ranges(depths) if len(depths) == len(outcomes) else ", ".join(outcome.name for outcome in outcomes)


def _were(outcomes: Sequence[Outcome]) -> str:
    return "was" if len(outcomes) == 1 else "were"


def _speed(outcome: Outcome) -> str:
    """`, 2.1× faster than full fine-tuning`; nothing for that itself, or where it was not run."""
    if outcome.speedup is None or outcome.scenario in UNFROZEN:
        return ""
    if outcome.speedup < 1:
        return f", {1 / outcome.speedup:.1f}× slower than full fine-tuning"
    return f", {outcome.speedup:.1f}× faster than full fine-tuning"


def _points(score: float) -> str:
    return f"{100 * score:.2f}"
