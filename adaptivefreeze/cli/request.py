"""`Request`: the options of a command, validated as far as possible before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..comparison.folder import file_name
from ..comparison.metric_names import LOSS
from ..comparison.scenarios import parse_scenarios
from ..comparison.settings import StudySettings, parse_assignments
from ..errors import RequestError
from ..policies import Policy
from .options import load_plugins

if TYPE_CHECKING:
    from ..data import Task
    from ..search import SearchOptions

_LOADING = (
    "pad_to_max_length",
    "limit",
    "per_class",
    "eval_limit",
    "test_limit",
    "revision",
    "text_column",
    "label_column",
)


@dataclass(frozen=True)
class Request:
    """The options of a command, parsed, with the defaults of the data set for those that are not given.

    Attributes:
        model: Hub name, folder or `demo`.
        dataset: Hub name, folder or `demo`.
        kind: The kind of task, None to infer it.
        max_length: Maximum length of an example in tokens.
        loading: Further arguments of `load_task`.
        scenarios: Policies and names of sets of policies.
        seeds: The seeds.
        settings: How each run is trained.
        folder: The output folder.
        plugins: Modules that register policies.
    """

    model: str
    dataset: str
    kind: Any
    max_length: int
    loading: Mapping[str, Any]
    scenarios: tuple[str | Policy, ...]
    seeds: tuple[int, ...]
    settings: StudySettings
    folder: Path
    plugins: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Request:
        """Build a request from the options of a command.

        Args:
            options: Values by the names of the options; None and a missing name mean that an option is not given.

        Raises:
            RequestError: A value is invalid for every data set and model.
        """
        given = {name: value for name, value in options.items() if value is not None}
        load_plugins(given.get("plugins"))
        dataset = str(given.get("dataset", "demo"))
        defaults = _defaults(dataset)
        return cls(
            model=given.get("model", "demo"),
            dataset=dataset,
            kind=given.get("task"),
            max_length=given.get("max_length", defaults["max_length"]),
            loading={name: given[name] for name in _LOADING if name in given},
            scenarios=parse_scenarios(given.get("scenarios") or ("paper",)),
            seeds=parse_seeds(given.get("seeds") or ("0",)),
            settings=StudySettings(
                epochs=given.get("epochs", defaults["epochs"]),
                batch_size=given.get("batch_size", defaults["batch_size"]),
                learning_rate=given.get("learning_rate", defaults["learning_rate"]),
                cache=given.get("cache", False),
                eval_steps=given.get("eval_steps"),
                match=given.get("match", "steps"),
                device=given.get("device"),
                clock=given.get("clock", "wall"),
                training_arguments=parse_assignments(given.get("set") or ()),
            ),
            folder=Path(given["output"]) if "output" in given else _default_folder(dataset, given.get("suffix")),
            plugins=tuple(given.get("plugins") or ()),
        )

    def load_task(self) -> Task:
        """Load the task. Raises `RequestError` as `adaptivefreeze.data.load_task` does."""
        from ..data import load_task

        load_plugins(self.plugins)  # again in a worker process of a search, which starts without them
        return load_task(self.dataset, model=self.model, kind=self.kind, max_length=self.max_length, **self.loading)


def with_demo_comparison(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `compare`; on the demo data set, with its scenarios, seeds and cache where not given.

    None and an empty list mean that an option is not given.
    """
    given = {name: value for name, value in options.items() if value is not None and value != () and value != []}
    if given.get("dataset", "demo") != "demo":
        return given
    from ..data import DEMO

    seeds = [str(seed) for seed in DEMO.seeds]
    return {"scenarios": list(DEMO.scenarios), "seeds": seeds, "cache": DEMO.cache, **given}


def parse_seeds(texts: Sequence[str]) -> tuple[int, ...]:
    """Parse integers separated by spaces or commas.

    Raises:
        RequestError: A text is not a non-negative integer.

    Example:
        >>> parse_seeds(["0,1", "2"])
        (0, 1, 2)
    """
    words = [word for text in texts for word in text.replace(",", " ").split()]
    if not all(word.isdecimal() for word in words):
        raise RequestError(f"--seeds {' '.join(texts)}: pass integers, such as --seeds 0 1 2.")
    return tuple(int(word) for word in words)


def search_options(options: Mapping[str, Any]) -> SearchOptions:
    """Build the options of a search from values by name; None and absent values keep their defaults.

    `depths` are texts, `tolerance` is in percentage points, and `none` stands for no baselines.
    """
    from ..search import SearchOptions

    names = {f.name for f in fields(SearchOptions)} - {"depths", "tolerance", "baselines", "greater_is_better"}
    given = {name: options[name] for name in names if options.get(name) is not None}
    points = options.get("tolerance", 0.5)
    if not 0 <= points < 100:
        raise RequestError(f"--tolerance {points:g} is not possible: give points, from 0 to 99.")
    depths, baselines = options.get("depths"), options.get("baselines")
    return SearchOptions(
        **given,
        greater_is_better=given.get("metric") != LOSS,
        depths=parse_depths(depths) if depths else None,
        tolerance=points / 100,
        baselines=None if not baselines else tuple(spec for spec in baselines if spec != "none"),
    )


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


def _defaults(dataset: str) -> dict[str, Any]:
    """Default values: those of the demo, or usual values for any other data set."""
    usual = {"epochs": 3, "batch_size": 16, "learning_rate": 5e-5, "max_length": 128}
    if dataset != "demo":
        return usual
    from ..data import DEMO

    return {name: getattr(DEMO, name) for name in usual}


def _default_folder(dataset: str, suffix: str | None) -> Path:
    """`runs/conll2003` for a comparison; with a suffix `runs/conll2003-search` or `runs/conll2003-bottom-up:6`."""
    path = Path(dataset)
    name = (path.resolve() if path.is_dir() else path).name
    if name in ("", ".", ".."):
        name = "study"
    return Path("runs") / (f"{name}-{file_name(suffix)}" if suffix else name)
