"""search_depth: the search for people with a Trainer, a model and a metric of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import release_memory
from optuna.storages import BaseStorage, InMemoryStorage
from transformers import PrinterCallback, ProgressCallback, Trainer, set_seed

from ..cache import PrefixCache
from ..comparison.compare import ProgressListener, check_seeds
from ..comparison.prediction import share_seen_again
from ..comparison.result import SCHEMA
from ..comparison.run import failure_sentence
from ..errors import RequestError
from ..meters.energy import EnergyMeter
from ..meters.memory import PeakMemory
from ..meters.step_timer import StepTimer
from ..model.blocks import find_blocks
from ..model.cost import step_ratio
from ..model.fingerprint import model_fingerprint
from ..policies import parse_policy
from ..trainer.callback import FreezeCallback
from .objective import Candidate, Measurement, TrialFailed
from .options import SearchOptions
from .result import DepthSearch
from .runner import conduct
from .storage import open_storage
from .study import check_study
from .units import Unit

TrainerFactory = Callable[[int], Trainer]

_NOT_SCORES = ("loss", "runtime", "samples_per_second", "steps_per_second", "epoch", "model_preparation_time")


def search_depth(
    trainer_factory: TrainerFactory,
    *,
    metric: str,
    depths: Sequence[int] | None = None,
    seeds: Sequence[int] = (0,),
    direction: str = "bottom-up",
    tolerance: float = 0.005,
    quick: bool = False,
    prune: bool = True,
    cache: bool = True,
    tower: str | None = None,
    output: str | Path | None = None,
    storage: str | None = None,
    study: str | None = None,
) -> DepthSearch:
    """How many blocks may be frozen in the training that `trainer_factory` describes, by an Optuna study.

    `trainer_factory(seed)` gives a fresh Trainer, with its evaluation set and without a FreezeCallback; it is called
    once a training. `seed` is set before and after the call, and in the trainer's arguments. `metric` is a key of
    `trainer.evaluate()`, with or without `eval_`, of which more is better; `tolerance` is in its units. `cache`: the
    frozen prefix is skipped for examples seen before, in any of the trainings. The other parameters are those of
    `SearchOptions`.

    The study lies in memory, or in SQLite under `output`, or in any `storage`; a search that is run again there goes
    on where it ended, and several processes that run the same script share it. There is no test split.

    Raises `RequestError` for a wrong request, before the study is touched, and `StudyFailed` when no training ended.
    """
    options = SearchOptions(
        depths=None if depths is None else tuple(depths),
        direction=direction,
        seeds=tuple(seeds),
        metric=metric.removeprefix("eval_"),
        tolerance=tolerance,
        prune=prune,
        quick=quick,
        baselines=(),
        storage=storage,
        study=study,
    )
    check_seeds(options.seeds)
    folder = None if output is None else Path(output)
    bench = TrainerBench(trainer_factory, options, cache=cache, tower=tower, rows=folder and folder / "rows")
    name = study or "depth"
    where: BaseStorage = InMemoryStorage()
    if folder is not None or storage is not None:
        folder = folder or Path()
        if storage is None:
            folder.mkdir(parents=True, exist_ok=True)
        where = open_storage(storage, folder)
    check_study(where, name, {**bench.identity(), "search": options.shared()})
    found = conduct(bench, where, name, options, ProgressListener(), rate=0.0, folder=folder)
    bench.drop_rows()
    return found


class TrainerBench:
    """Trains what a factory makes, and evaluates it by its own `evaluate`."""

    has_test = False

    def __init__(
        self, factory: TrainerFactory, options: SearchOptions, *, cache: bool, tower: str | None, rows: Path | None
    ) -> None:
        self._factory, self._metric, self._tower, self._caches = factory, options.metric, tower, cache
        self._rows = rows
        self._cache = PrefixCache(disk=rows) if cache else None
        trainer = self._trainer(options.seeds[0])
        if any(isinstance(callback, FreezeCallback) for callback in trainer.callback_handler.callbacks):
            raise RequestError("The trainer has a FreezeCallback already: leave it out, the search adds its own.")
        self.stack = find_blocks(_model(trainer), tower=tower)
        self.depth = self.stack.depth
        options.depths_of(self.depth)
        self._epochs = float(trainer.args.num_train_epochs)
        self._identity = self._describe(trainer)
        self._score(trainer.evaluate())  # says at once when the metric is not there

    def identity(self) -> dict[str, Any]:
        return {**self._identity, "search": {}}

    def measure(self, candidate: Candidate, unit: Unit, *, keep: bool) -> Measurement:
        try:
            return self._measure(candidate, unit)
        except RequestError:
            raise
        except Exception as error:  # whatever it is, the other depths are worth having
            sentence = failure_sentence(error)
        release_memory()  # out here, where the traceback no longer holds the model
        raise TrialFailed(f"{candidate}, {unit}: {sentence}")

    def cost(self, candidate: Candidate) -> float:
        mask = parse_policy(candidate.scenario).initial_mask(self.stack)
        again = share_seen_again(self._epochs) if self._caches else 0.0
        return (1 - again) * step_ratio(self.stack, mask) + again * step_ratio(self.stack, mask, cached=self._caches)

    def test(self, candidate: Candidate, unit: Unit) -> dict[str, float]:
        return {}

    def drop_rows(self) -> None:
        """The search is over: nothing will read the rows again."""
        if self._rows is not None:
            shutil.rmtree(self._rows, ignore_errors=True)

    def _measure(self, candidate: Candidate, unit: Unit) -> Measurement:
        trainer = self._trainer(unit.seed)
        policy = parse_policy(candidate.scenario)
        clock = StepTimer(trainer.args.device, EnergyMeter.of(trainer.args.device))
        freezing = FreezeCallback(policy, cache=self._cache or False, tower=self._tower)
        trainer.callback_handler.callbacks.insert(0, clock.opening)  # around whatever the others do in a step
        trainer.add_callback(freezing)
        trainer.add_callback(clock.closing)
        held = self._cache.stats.memory_bytes if self._cache else 0
        with PeakMemory(trainer.args.device) as peak:
            trainer.train()
        score = self._score(trainer.evaluate())
        spared, stats = 0.0, None if self._cache is None else self._cache.stats
        mask = policy.initial_mask(self.stack)
        if stats is not None and stats.disabled_reason is None and mask.prefix >= 2:
            examples = max(1, trainer.num_examples(trainer.get_train_dataloader()))
            skipped = step_ratio(self.stack, mask) - step_ratio(self.stack, mask, cached=True)
            spared = max(0.0, 1 - stats.misses / examples) * skipped / max(1.0, self._epochs)
        return Measurement(score, clock.seconds, spared, peak.bytes + held * (mask.prefix >= 2))

    def _trainer(self, seed: int) -> Trainer:
        set_seed(seed)
        trainer = self._factory(seed)
        talking = [c for c in trainer.callback_handler.callbacks if type(c) in (PrinterCallback, ProgressCallback)]
        for callback in talking:
            trainer.remove_callback(callback)
        # Trainers made from one object of arguments have its seed, in their data order and in what comes after them.
        trainer.args.seed = trainer.args.data_seed = seed
        set_seed(seed)
        return trainer

    def _score(self, metrics: Mapping[str, float]) -> float:
        found = {name.removeprefix("eval_"): value for name, value in metrics.items()}
        if self._metric not in found:
            reported = ", ".join(name for name in found if name not in _NOT_SCORES) or "none; give it compute_metrics"
            raise RequestError(f"The metric {self._metric} is not reported; the trainer reports {reported}.")
        if self._metric == "loss":
            raise RequestError("Of the metric loss less is better: give one of which more is better.")
        return float(found[self._metric])

    def _describe(self, trainer: Trainer) -> dict[str, Any]:
        arguments, model = trainer.args, _model(trainer)
        names = ("num_train_epochs", "max_steps", "per_device_train_batch_size", "learning_rate")
        settings = {name: getattr(arguments, name) for name in (*names, "gradient_accumulation_steps")}
        train: Any = trainer.train_dataset
        return {
            "schema": SCHEMA,
            "task": {"dataset": "of the trainer", "fingerprint": f"{len(train)} examples"},
            "model": {
                "name": type(model).__name__,
                "fingerprint": model_fingerprint(model),
                "blocks": self.depth,
                "parameters": self.stack.total,
            },
            "settings": {**settings, "cache": self._caches},
        }


def _model(trainer: Trainer) -> Any:
    if trainer.model is None:
        raise RequestError("The trainer has no model: make it in the factory, not by model_init.")
    return trainer.model
