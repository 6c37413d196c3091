"""search_depth: the depth search for a user's own Trainer, model and metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import release_memory
from transformers import PrinterCallback, ProgressCallback, Trainer, set_seed

from ..comparison.compare import check_seeds
from ..comparison.result import SCHEMA
from ..comparison.run import failure_sentence
from ..errors import RequestError
from ..meters.energy import EnergyMeter
from ..meters.memory import PeakMemory
from ..meters.step_timer import StepTimer
from ..model.fingerprint import model_fingerprint
from ..policies import Policy
from ..policies.arguments import suggestion
from ..trainer.callback import FreezeCallback
from ..trainer.towers import blocks_for
from .objective import Objective
from .result import DepthSearch
from .runner import conduct
from .space import SearchOptions, static_policy
from .storage import open_storage
from .trials import Candidate, Measurement, Replicate, TrialFailed

TrainerFactory = Callable[[int], Trainer]

_NOT_SCORES = ("loss", "runtime", "samples_per_second", "steps_per_second", "epoch", "model_preparation_time")
_MINIMIZED = ("loss", "perplexity", "wer", "cer", "rmse", "mse", "mae")
_SETTINGS = (
    *("num_train_epochs", "max_steps", "learning_rate"),
    *("per_device_train_batch_size", "gradient_accumulation_steps"),
)


def search_depth(
    trainer: Trainer | TrainerFactory,
    *,
    metric: str,
    greater_is_better: bool = True,
    depths: Sequence[int] | None = None,
    side: str = "bottom",
    seeds: Sequence[int] = (0,),
    tolerance: float = 0.005,
    quick: bool = False,
    prune: bool = True,
    baselines: Sequence[str | Policy] = (),
    cache: bool = True,
    tower: str | None = None,
    output_dir: str | Path | None = None,
    storage: str | None = None,
    study_name: str | None = None,
) -> DepthSearch:
    """Search how many blocks can be frozen in a training of your own, with an Optuna study.

    The study is kept in memory, in SQLite under `output_dir`, or in any `storage`. A search that is run again there
    resumes where it stopped, and several processes that run the same script share it. Scores are those of
    `trainer.evaluate()`; there is no test split.

    Args:
        trainer: A function that takes a seed and returns a new Trainer, called once per training; or a Trainer made
            with `model_init`, which is reused: each training starts from a new model that `model_init` returns under
            that seed, and afterwards the Trainer has its callbacks and seeds back. Callbacks of a reused Trainer must
            not carry state from one training to the next. The Trainer needs an evaluation set and no FreezeCallback.
            The search sets the seed before each training, also in the Trainer's arguments.
        metric: A key of `trainer.evaluate()`, with or without `eval_`.
        greater_is_better: Whether `metric` is maximized. Pass False for a loss, perplexity or RMSE.
        depths: Numbers of blocks to freeze; by default every number from 0 to all blocks.
        side: The end from which blocks are frozen, `"bottom"` or `"top"`.
        seeds: Seeds that each depth is trained with.
        tolerance: How far from the best score a depth may lie to count as good enough, in units of `metric`.
        quick: Try a few depths first, then only those that can still win.
        prune: Stop a depth that is clearly worse on the seeds run so far.
        baselines: Policies to compare with, as specs or `Policy` objects.
        cache: Skip the frozen prefix for examples seen before, in any of the trainings.
        tower: The tower to freeze, in a model with several.
        output_dir: Folder of the study, the cached rows and the result, `search.json`.
        storage: `journal:FILE`, `grpc://HOST:PORT`, or the URL of any Optuna storage.
        study_name: Name of the Optuna study.

    Returns:
        The result: `best` is the depth with the best mean score, `fast` the deepest within `tolerance` of it.

    Raises:
        RequestError: If the request is wrong. The study is not changed.
        StudyFailed: If no training ended.

    Example:
        >>> def make_trainer(seed):
        ...     return Trainer(model=new_model(seed), args=args, train_dataset=train, eval_dataset=valid)
        >>> found = search_depth(make_trainer, metric="loss", greater_is_better=False)  # doctest: +SKIP
        >>> found.best.depth, found.fast.depth  # doctest: +SKIP
    """
    options = SearchOptions(
        depths=None if depths is None else tuple(depths),
        side=side,
        seeds=tuple(seeds),
        metric=metric.removeprefix("eval_"),
        greater_is_better=greater_is_better,
        tolerance=tolerance,
        prune=prune,
        quick=quick,
        baselines=tuple(baselines),
        storage=storage,
        study_name=study_name,
    )
    check_seeds(options.seeds)
    folder = None if output_dir is None else Path(output_dir)
    objective = TrainerObjective(trainer, options, cache=cache, tower=tower, rows=folder and folder / "rows")
    options = options.resolved(objective.depth)
    return conduct(objective, open_storage(storage, folder), study_name or "depth", options, folder=folder)


class TrainerObjective(Objective):
    """Trains with a user's Trainer and scores by its own `evaluate`."""

    def __init__(
        self,
        source: Trainer | TrainerFactory,
        options: SearchOptions,
        *,
        cache: bool,
        tower: str | None,
        rows: Path | None,
    ) -> None:
        if isinstance(source, Trainer) and source.model_init is None:
            raise RequestError("The Trainer has no model_init: make it with one, or pass a function that makes it.")
        self._source, self._tower, self._options = source, tower, options
        with self._trainer(options.seeds[0]) as trainer:
            if any(isinstance(callback, FreezeCallback) for callback in trainer.callback_handler.callbacks):
                raise RequestError("The Trainer has a FreezeCallback already: remove it, the search adds its own.")
            # A reused Trainer may hold a trained model.
            model: Any = trainer.model if trainer.model_init is None else trainer.call_model_init()
            if model is None:
                raise RequestError("The Trainer has no model: give it one, or a model_init.")
            stack, arguments = blocks_for(model, tower, static_policy(options.side, 0)), trainer.args
            super().__init__(
                stack,
                f"a model with {stack.depth} blocks",
                epochs=float(arguments.num_train_epochs),
                learning_rate=arguments.learning_rate,
                cached=cache,
                rows=rows,
            )
            train: Any = trainer.train_dataset
            self._described = {
                "schema": SCHEMA,
                "task": {"dataset": "of the trainer", "fingerprint": f"{len(train)} examples"},
                "model": {
                    "name": type(model).__name__,
                    "fingerprint": model_fingerprint(model),
                    "blocks": stack.depth,
                    "parameters": stack.total,
                },
                "settings": {**{name: getattr(arguments, name) for name in _SETTINGS}, "cache": cache},
            }
            self._score(trainer.evaluate())  # a missing metric is reported before any training

    def _description(self) -> dict[str, Any]:
        return self._described

    def measure(self, candidate: Candidate, replicate: Replicate, *, keep: bool) -> Measurement:
        try:
            with self._trainer(replicate.seed) as trainer:
                return self._measure(trainer, candidate.policy)
        except RequestError:
            raise
        except Exception as error:  # whatever it is, the search goes on with the other depths
            sentence = failure_sentence(error)
        release_memory()  # here, where no traceback holds the model any more
        raise TrialFailed(f"{candidate}, {replicate}: {sentence}")

    def _measure(self, trainer: Trainer, policy: Policy) -> Measurement:
        clock = StepTimer(trainer.args.device, EnergyMeter.of(trainer.args.device))
        trainer.callback_handler.callbacks.insert(0, clock.opening)  # times whatever the other callbacks do in a step
        trainer.add_callback(FreezeCallback(policy, cache=self.cache or False, tower=self._tower, quiet=True))
        trainer.add_callback(clock.closing)
        held = self._held(policy)
        with PeakMemory(trainer.args.device) as peak:
            trainer.train()
        score, saved = self._score(trainer.evaluate()), 0.0
        if self.cache is not None:
            examples = max(1, trainer.num_examples(trainer.get_train_dataloader()))
            saved = self._saved(policy, self.cache.stats.to_json(), examples)
        return Measurement(score, clock.seconds, saved, peak.bytes + held)

    @contextmanager
    def _trainer(self, seed: int) -> Iterator[Trainer]:
        """A Trainer that is about to train with `seed`, without progress output."""
        set_seed(seed)
        trainer = self._source if isinstance(self._source, Trainer) else self._source(seed)
        callbacks = list(trainer.callback_handler.callbacks)
        seeds = trainer.args.seed, trainer.args.data_seed
        silent = [c for c in callbacks if type(c) not in (PrinterCallback, ProgressCallback)]
        trainer.callback_handler.callbacks = silent
        # Trainers that share one arguments object would all have its seed.
        trainer.args.seed = trainer.args.data_seed = seed
        set_seed(seed)
        try:
            yield trainer
        finally:
            trainer.callback_handler.callbacks = callbacks
            trainer.args.seed, trainer.args.data_seed = seeds

    def _score(self, metrics: Mapping[str, float]) -> float:
        metric = self._options.metric
        found = {name.removeprefix("eval_"): value for name, value in metrics.items()}
        if metric not in found:
            scores = [name for name in found if name not in _NOT_SCORES]
            reported = ", ".join(scores) or "none; give it compute_metrics"
            near = suggestion(metric, scores)
            raise RequestError(f"The metric {metric} is not reported; the trainer reports {reported}.{near}")
        if metric in _MINIMIZED and self._options.greater_is_better:
            raise RequestError(f"{metric} is minimized; pass greater_is_better=False.")
        return float(found[metric])
