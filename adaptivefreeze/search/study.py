"""The Optuna study of a search: made once, refused where it was made for something else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from ..comparison.folder import difference
from ..errors import RequestError
from .trials import quiet

_PARTS = ("schema", "task", "model", "settings", "search")
_PATIENCE = 10.0


def open_study(
    storage: BaseStorage,
    name: str,
    identity: Mapping[str, Any],
    *,
    metrics: tuple[str, ...],
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
) -> optuna.Study:
    """The study `name`, made if there is none. The first of `metrics` is maximised, a second one minimised.

    Raises `RequestError`, with the study untouched, when it was made for another task, model or kind of search.
    """
    with quiet():
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=[StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][: len(metrics)],
                sampler=sampler,
                pruner=pruner or optuna.pruners.NopPruner(),
            )
        except DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=name, sampler=sampler, pruner=pruner)
        else:
            study.set_metric_names(list(metrics))
            # `search` comes last: who finds it finds the others too.
            for part in _PARTS:
                study.set_user_attr(part, identity[part])
            return study
    _check(study, name, identity)
    return study


def check_study(storage: BaseStorage, name: str, identity: Mapping[str, Any]) -> None:
    """Raises `RequestError` when there is a study `name` that was made for something else; changes nothing."""
    with quiet():
        if name in optuna.get_all_study_names(storage):
            _check(optuna.load_study(storage=storage, study_name=name), name, identity)


def _check(study: optuna.Study, name: str, identity: Mapping[str, Any]) -> None:
    until = time.monotonic() + _PATIENCE
    while _PARTS[-1] not in study.user_attrs and time.monotonic() < until:
        time.sleep(0.1)  # whoever makes it at this moment has not come to its last attribute
    theirs = study.user_attrs
    if _PARTS[-1] not in theirs:
        raise RequestError(f"The study {name!r} was made by another program: give another --study.")
    found = difference(theirs, identity)
    if found:
        raise RequestError(
            f"The study {name!r} was made for something else ({found}): give another --study or --output."
        )
