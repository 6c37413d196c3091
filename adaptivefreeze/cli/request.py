"""Request: what a person asked for on the command line, checked as far as it can be before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..comparison.folder import file_name
from ..comparison.scenarios import check_specs
from ..comparison.settings import StudySettings, parse_assignments
from ..errors import RequestError
from .options import load_plugins

if TYPE_CHECKING:
    from ..data import Task

_LOADING = ("pad_to_max_length", "limit", "revision", "text_column", "label_column")


@dataclass(frozen=True)
class Request:
    """A study or a training as it was asked for, with the defaults of its data set where nothing was said."""

    model: str
    dataset: str
    kind: Any
    max_length: int
    loading: Mapping[str, Any]
    scenarios: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: StudySettings
    folder: Path
    plugins: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Request:
        """The request that `options` make, by the names of the command line; None and absent mean nothing was said.

        Raises `RequestError` for a value that cannot be, whatever the data and the model turn out to be.
        """
        given = {name: value for name, value in options.items() if value is not None}
        load_plugins(given.get("plugins"))
        dataset = str(given.get("dataset", "demo"))
        defaults = _defaults(dataset)
        scenarios = tuple(given.get("scenarios") or ("paper",))
        check_specs(scenarios)
        return cls(
            model=given.get("model", "demo"),
            dataset=dataset,
            kind=given.get("task"),
            max_length=given.get("max_length", defaults["max_length"]),
            loading={name: given[name] for name in _LOADING if name in given},
            scenarios=scenarios,
            seeds=parse_seeds(given.get("seeds") or ("0",)),
            settings=StudySettings(
                epochs=given.get("epochs", defaults["epochs"]),
                batch_size=given.get("batch_size", defaults["batch_size"]),
                learning_rate=given.get("learning_rate", defaults["learning_rate"]),
                cache=given.get("cache", False),
                eval_steps=given.get("eval_steps"),
                match=given.get("match", "steps"),
                device=given.get("device"),
                training_arguments=parse_assignments(given.get("set") or ()),
            ),
            folder=Path(given["output"])
            if "output" in given
            else _default_folder(dataset, given.get("policy") or given.get("suffix")),
            plugins=tuple(given.get("plugins") or ()),
        )

    def load_task(self) -> Task:
        """Data set, tokenizer and model, ready to train. Raises `RequestError` as `load_task` of tasks does."""
        from ..data import load_task

        load_plugins(self.plugins)  # again in a worker process of a search, which starts without them
        return load_task(self.dataset, model=self.model, kind=self.kind, max_length=self.max_length, **self.loading)


def parse_seeds(texts: Sequence[str]) -> tuple[int, ...]:
    """`["0,1", "2"]` -> `(0, 1, 2)`. Raises `RequestError` for what is no whole number."""
    words = [word for text in texts for word in text.replace(",", " ").split()]
    if not all(word.isdecimal() for word in words):
        raise RequestError(f"--seeds {' '.join(texts)}: give whole numbers, such as --seeds 0 1 2.")
    return tuple(int(word) for word in words)


def _defaults(dataset: str) -> dict[str, Any]:
    """The demo trains as it needs to show its trade-off within minutes; any other data set as is usual."""
    usual = {"epochs": 3, "batch_size": 16, "learning_rate": 5e-5, "max_length": 128}
    if dataset != "demo":
        return usual
    from ..data import DEMO

    return {name: getattr(DEMO, name) for name in usual}


def _default_folder(dataset: str, suffix: str | None) -> Path:
    """`runs/conll2003` for a comparison, `runs/conll2003-search` for a search, `runs/conll2003-bottom-up:6` for a
    training."""
    path = Path(dataset)
    name = (path.resolve() if path.is_dir() else path).name or "study"
    return Path("runs") / (f"{name}-{file_name(suffix)}" if suffix else name)
