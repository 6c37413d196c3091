"""SearchOptions: what a search tries and how it scores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..errors import RequestError
from ..policies import Policy, parse_policy

SIDES = ("bottom", "top")


@dataclass(frozen=True)
class SearchOptions:
    """What a search tries and how it scores it.

    Args:
        depths: Numbers of blocks to freeze; by default every number from 0 to all blocks.
        side: The end from which blocks are frozen, `"bottom"` or `"top"`.
        seeds: Seeds that each candidate is trained with.
        folds: Score on this many parts of the training split in turn instead of on the validation split.
        metric: The validation metric that decides.
        greater_is_better: Whether `metric` is maximized. If False, it is minimized.
        tolerance: How far below the best score a depth may lie to count as good enough, in units of `metric`.
        prune: Stop a candidate that is clearly worse on the seeds or folds run so far (Wilcoxon signed-rank test,
            p < 0.1). The test needs at least four of them.
        quick: Try a few depths first, then only those that can still win; see `space.QuickPlan`.
        trials: Sample this many combinations of policy, parameters and learning rate instead of trying depths.
        pareto: With `trials`, optimize score and training time together.
        baselines: Scenarios to run for comparison, as specs or `Policy` objects. By default the set `paper` when all
            depths are searched, and none otherwise.
        storage: Where the Optuna study is kept; see `storage.open_storage`.
        study_name: Name of the Optuna study.
        workers: Number of local processes.

    Raises:
        RequestError: If a value is out of range or two options exclude each other.
    """

    depths: tuple[int, ...] | None = None
    side: str = "bottom"
    seeds: tuple[int, ...] = (0,)
    folds: int | None = None
    metric: str = "macro_f1"
    greater_is_better: bool = True
    tolerance: float = 0.005
    prune: bool = True
    quick: bool = False
    trials: int | None = None
    pareto: bool = False
    baselines: tuple[str | Policy, ...] | None = None
    storage: str | None = None
    study_name: str | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("workers", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise RequestError(f"--{name} {value} is not possible: give {least} or more.")
        if self.greater_is_better and not 0 <= self.tolerance < 1:
            raise RequestError(f"--tolerance {100 * self.tolerance:g} is not possible: give points, from 0 to 99.")
        if self.tolerance < 0:
            raise RequestError(f"tolerance {self.tolerance:g} is not possible: give 0 or more.")
        if self.side not in SIDES:
            raise RequestError(f"--side {self.side} is unknown: give {' or '.join(SIDES)}.")
        if self.trials and (self.quick or self.depths is not None):
            raise RequestError("--trials samples depths itself: omit --quick and --depths.")
        if self.pareto and not self.trials:
            raise RequestError("--pareto needs a sampled search: give --trials as well.")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> SearchOptions:
        """Build the options from command-line values by name; None and absent values keep their defaults.

        `depths` are texts there, `tolerance` is in percentage points, and `none` stands for no baselines.
        """
        names = {f.name for f in fields(cls)} - {"depths", "tolerance", "baselines"}
        given = {name: options[name] for name in names if options.get(name) is not None}
        depths, baselines = options.get("depths"), options.get("baselines")
        return cls(
            **given,
            depths=parse_depths(depths) if depths else None,
            tolerance=options.get("tolerance", 0.5) / 100,
            baselines=None if not baselines else tuple(spec for spec in baselines if spec != "none"),
        )

    @property
    def compared_with(self) -> tuple[str | Policy, ...]:
        """The baselines that apply."""
        if self.baselines is not None:
            return self.baselines
        return () if self.quick or self.trials else ("paper",)

    def depths_of(self, blocks: int) -> tuple[int, ...]:
        """Return the depths to search in a model of `blocks` blocks, in ascending order.

        Raises:
            RequestError: If a depth is larger than the model, or none is given.
        """
        depths = tuple(sorted(set(self.depths))) if self.depths is not None else tuple(range(blocks + 1))
        outside = [depth for depth in depths if not 0 <= depth <= blocks]
        if outside or not depths:
            given = ", ".join(map(str, outside)) or "nothing"
            raise RequestError(
                f"--depths {given} is out of range: this model has {blocks} blocks, so give 0 to {blocks}."
            )
        return depths

    def policy(self, scenario: str) -> Policy:
        """Return the policy of a stored scenario: a baseline given as an object, or the parsed spec."""
        given = (policy for policy in self.compared_with if isinstance(policy, Policy) and str(policy) == scenario)
        return next(given, None) or parse_policy(scenario)

    def shared(self) -> dict[str, Any]:
        """Return what all trials of one study have in common, as plain JSON."""
        space = "samples, score and time" if self.pareto else "samples" if self.trials else "depths"
        names = ("metric", "greater_is_better", "folds")
        return {**{name: getattr(self, name) for name in names}, "space": space}


def parse_depths(texts: Sequence[str]) -> tuple[int, ...]:
    """Parse depths as typed on the command line.

    >>> parse_depths(["0-3", "6,9"])
    (0, 1, 2, 3, 6, 9)

    Raises:
        RequestError: If a word is neither a whole number nor a range.
    """
    found: list[int] = []
    for word in (word for text in texts for word in text.replace(",", " ").split()):
        first, dash, last = word.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise RequestError(f"--depths {' '.join(texts)}: give whole numbers or ranges, such as --depths 0-6 9 12.")
        found += range(int(first), int(last or first) + 1)
    return tuple(dict.fromkeys(found))
