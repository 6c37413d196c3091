"""Checks of policy arguments, and the conversions that several policies share."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Collection, Mapping, Sequence

from ..errors import RequestError


def check_number(
    policy: str,
    name: str,
    value: object,
    low: float,
    high: float = math.inf,
    *,
    whole: bool = False,
    open_low: bool = False,
) -> None:
    """Check that an argument is a number in a range.

    Args:
        policy: Name of the policy, for the message.
        name: Name of the argument, for the message.
        value: The argument.
        low: Smallest value; with `open_low`, the value must be larger.
        high: Largest value.
        whole: Require an integer.
        open_low: Exclude `low` itself.

    Raises:
        RequestError: When `value` is not such a number.
    """
    wrong = isinstance(value, bool) or not isinstance(value, int if whole else (int, float))
    wrong = wrong or abs(value) > sys.float_info.max  # type: ignore[arg-type]
    if wrong or not (low < value if open_low else low <= value) or not value <= high:  # type: ignore[operator]
        kind = "a whole number" if whole else "a number"
        begin = f"above {low}" if open_low else f"of {low} or more" if high == math.inf else f"from {low}"
        end = "" if high == math.inf else f" up to {high}" if open_low else f" to {high}"
        raise RequestError(f"{policy}: {name} must be {kind} {begin}{end}, not {value!r}.")


def check_choice(policy: str, name: str, value: object, choices: Sequence[str]) -> None:
    """Raise `RequestError` unless `value` is one of `choices`."""
    if value not in choices:
        raise RequestError(f"{policy}: {name} must be {', '.join(choices[:-1])} or {choices[-1]}, not {value!r}.")


def check_flag(policy: str, name: str, value: object) -> None:
    """Raise `RequestError` unless `value` is a bool."""
    if not isinstance(value, bool):
        raise RequestError(f"{policy}: {name} must be true or false, not {value!r}.")


def check_depth(policy: str, k: object) -> None:
    """Raise `RequestError` unless `k` is a number of blocks or a fraction from 0.0 to 1.0."""
    if isinstance(k, bool) or not isinstance(k, (int, float)) or not k >= 0 or (isinstance(k, float) and k > 1):
        raise RequestError(
            f"{policy}: depth must be a whole number of blocks (0 or more) or a fraction from 0.0 to 1.0, not {k!r}."
        )


def depth_of(policy: str, k: float, blocks: int) -> int:
    """Return `k` as a number of blocks.

    Args:
        policy: Name of the policy, for the message.
        k: A number of blocks (int), or a fraction of the depth (float), rounded half up.
        blocks: Number of blocks of the model.

    Raises:
        RequestError: When `k` is larger than `blocks`.
    """
    if isinstance(k, float):
        return math.floor(k * blocks + 0.5)
    if k > blocks:
        raise RequestError(f"{policy}: depth {k} is out of range, this model has {blocks} blocks; give 0 to {blocks}.")
    return k


def intervals(per_epoch: float, total_steps: int, steps_per_epoch: float) -> list[int]:
    """Return the last step of each of the equal intervals of a run, but for the last interval.

    >>> intervals(2, total_steps=100, steps_per_epoch=50)
    [25, 50, 75]
    """
    count = round(max(1, min(total_steps, per_epoch * total_steps / steps_per_epoch)))
    ends = {math.floor(i * total_steps / count + 0.5) for i in range(1, count)}
    return sorted(end for end in ends if 0 < end < total_steps)


def suggestion(name: str, known: Collection[str]) -> str:
    """Return ` Did you mean …?` for a name close to, or part of, known ones, else an empty text.

    Example:
        >>> suggestion("f1", ["accuracy", "macro_f1"])
        ' Did you mean macro_f1?'
        >>> suggestion("acuracy", ["accuracy", "macro_f1"])
        ' Did you mean accuracy?'
    """
    near = [other for other in known if name in other.split("_")] or difflib.get_close_matches(name, known, 1)
    return f" Did you mean {near[0]}?" if near else ""


def metric_value(policy: str, metric: str, metrics: Mapping[str, object], *, reported: bool) -> float | None:
    """Return the value of a metric in what an evaluation reports.

    Args:
        policy: Name of the policy, for the message.
        metric: Name of the metric, with or without `eval_`.
        metrics: What the evaluation reports.
        reported: Whether an earlier evaluation reported the metric. Evaluations on several data sets report one each.

    Returns:
        The value, or None if only earlier evaluations reported it.

    Raises:
        RequestError: If no evaluation has reported it.
    """
    for key in (metric, f"eval_{metric}"):
        value = metrics.get(key)
        if isinstance(value, (int, float)):
            return float(value)
    if reported:
        return None
    numbers = sorted(key.removeprefix("eval_") for key, value in metrics.items() if isinstance(value, (int, float)))
    near = suggestion(metric.removeprefix("eval_"), numbers)
    raise RequestError(f"{policy}: no evaluation reports {metric!r}; there are {', '.join(numbers)}.{near}")


def is_minimized(metric: str, mode: str) -> bool:
    """Return whether less of a metric is better, in the mode `min`, `max` or `auto`: then a loss is minimized."""
    return mode == "min" or (mode == "auto" and metric.endswith("loss"))
