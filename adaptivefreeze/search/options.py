"""SearchOptions: what is searched for, and how thoroughly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..errors import RequestError

DIRECTIONS = ("bottom-up", "top-down")


@dataclass(frozen=True)
class SearchOptions:
    """What is searched for.

    - `depths`: how many blocks to freeze, all from 0 to the model's by default; from which end, says `direction`
    - `seeds`, `folds`: what each is scored on; with `folds`, parts of the training split in place of validation
    - `metric`: of validation, more is better; `tolerance`: how far below the best is good enough, 0.005 = 0.5 points
    - `prune`: give a depth up when it is clearly worse on the seeds or folds so far (Wilcoxon, p < 0.1; that takes
      four of them at least)
    - `quick`: not all depths, see `plan.Quick`
    - `trials`: so many samples of policies, their parameters and learning rates in place of depths; with `pareto` for
      score and time together
    - `baselines`: scenarios to run beside the depths; by default the set `paper` where all depths are searched
    - `storage`, `study`: a URL as `storage.open_storage` takes it, and the study's name in it
    - `workers`: local processes

    Raises `RequestError` for a value that cannot be.
    """

    depths: tuple[int, ...] | None = None
    direction: str = "bottom-up"
    seeds: tuple[int, ...] = (0,)
    folds: int | None = None
    metric: str = "macro_f1"
    tolerance: float = 0.005
    prune: bool = True
    quick: bool = False
    trials: int | None = None
    pareto: bool = False
    baselines: tuple[str, ...] | None = None
    storage: str | None = None
    study: str | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("workers", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise RequestError(f"--{name} {value} is not possible: give {least} or more.")
        if not 0 <= self.tolerance < 1:
            raise RequestError(f"--tolerance {100 * self.tolerance:g} is not possible: give points, from 0 to 99.")
        if self.direction not in DIRECTIONS:
            raise RequestError(f"--direction {self.direction} is unknown: give {' or '.join(DIRECTIONS)}.")
        if self.trials and (self.quick or self.depths is not None):
            raise RequestError("--trials samples depths itself: leave --quick and --depths out.")
        if self.pareto and not self.trials:
            raise RequestError("--pareto is for sampled searches: give --trials as well.")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> SearchOptions:
        """The search that `options` ask for, by the names of the command line; None and absent mean nothing was said.

        Depths are texts there, the tolerance is in points, and `none` stands for no baselines.
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
    def compared_with(self) -> tuple[str, ...]:
        """The baselines in force."""
        if self.baselines is not None:
            return self.baselines
        return () if self.quick or self.trials else ("paper",)

    def depths_of(self, blocks: int) -> tuple[int, ...]:
        """The depths to search in a model of `blocks` blocks, in order. Raises `RequestError` for one it has not."""
        depths = tuple(sorted(set(self.depths))) if self.depths is not None else tuple(range(blocks + 1))
        outside = [depth for depth in depths if not 0 <= depth <= blocks]
        if outside or not depths:
            given = ", ".join(map(str, outside)) or "nothing"
            raise RequestError(
                f"--depths {given} is out of range: this model has {blocks} blocks, so give 0 to {blocks}."
            )
        return depths

    def shared(self) -> dict[str, Any]:
        """What all trials of one study must agree on, as plain JSON."""
        kind = "samples, score and time" if self.pareto else "samples" if self.trials else "depths"
        return {"metric": self.metric, "folds": self.folds, "space": kind}


def parse_depths(texts: Sequence[str]) -> tuple[int, ...]:
    """`["0-3", "6,9"]` -> `(0, 1, 2, 3, 6, 9)`. Raises `RequestError` for what is neither a number nor a range."""
    found: list[int] = []
    for word in (word for text in texts for word in text.replace(",", " ").split()):
        first, dash, last = word.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise RequestError(f"--depths {' '.join(texts)}: give whole numbers or ranges, such as --depths 0-6 9 12.")
        found += range(int(first), int(last or first) + 1)
    return tuple(dict.fromkeys(found))
