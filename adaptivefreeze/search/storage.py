"""The Optuna study of a search: its storage, its identity, and recovery of trials whose worker died."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna import storages
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from ..comparison.folder import difference
from ..errors import RequestError

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10
HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 60
MAX_RETRIES = 2
WORKER, HEARTBEAT = "worker", "heartbeat"  # user attributes of a trial: who runs it, and a counter that grows

_RETRIES = 4
_IDENTITY = ("schema", "task", "model", "settings", "search")


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's log lines and its warnings about experimental features; the search reports by itself."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


@quiet_optuna()
def open_storage(url: str | None, folder: Path | None) -> BaseStorage:
    """Open `journal:FILE`, `grpc://HOST:PORT`, `redis://…` (used as a journal), or the URL of a database.

    Without a URL, the study is kept in SQLite, in `study.db` under `folder`; without a folder as well, in memory.

    Raises:
        RequestError: If nothing answers within `CONNECT_SECONDS`, or what answers is not an Optuna storage.
    """
    if url is None:
        if folder is None:
            return storages.InMemoryStorage()
        folder.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{folder / 'study.db'}"
    try:
        return _open_with_retries(url)
    except ImportError as error:
        # The modules of grpcio and protobuf have other names than their packages.
        package = f"package {error.name or 'of its driver'}"
        missing = "packages grpcio and protobuf" if url.startswith("grpc") else package
        raise RequestError(f"storage {public_url(url)} needs the {missing}: install what is missing.") from error
    except Exception as error:  # every driver has exceptions of its own
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RequestError(
            f"storage {public_url(url)} does not answer as a storage for Optuna ({reason.rstrip('.')[:200]}): "
            "check that it runs and that the address is right."
        ) from error


def public_url(url: str) -> str:
    """Return `url` without its password."""
    scheme, slashes, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{slashes}{user.partition(':')[0]}{at}{host}"


def open_study(
    storage: BaseStorage,
    name: str,
    identity: Mapping[str, Any],
    directions: Mapping[str, StudyDirection],
    *,
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
) -> optuna.Study:
    """Load the study `name`, or create it with `identity` in its user attributes.

    Raises:
        RequestError: If the study was made for another task, model or kind of search. The study is not changed.
    """
    wanted = list(directions.values())
    study = optuna.create_study(
        storage=storage, study_name=name, directions=wanted, sampler=sampler, pruner=pruner, load_if_exists=True
    )
    used = bool(study.get_trials(deepcopy=False))
    if _check_identity(study, identity):
        return study
    if used or study.directions != wanted:
        raise RequestError(f"The study {name!r} was made by another program: give another study name.")
    study.set_metric_names(list(directions))
    for part in _IDENTITY:  # the last one is there only when all others are
        study.set_user_attr(part, identity[part])
    return study


def check_study(storage: BaseStorage, name: str, identity: Mapping[str, Any]) -> None:
    """Raise `RequestError` if there is a study `name` that was made for something else. Nothing is changed."""
    if name in optuna.get_all_study_names(storage):
        _check_identity(optuna.load_study(storage=storage, study_name=name), identity)


@contextmanager
def heartbeat(trial: Trial) -> Iterator[None]:
    """Renew the heartbeat of `trial`, a user attribute, while the body runs; Optuna's own needs a database."""
    stop = threading.Event()

    def renew() -> None:
        count = 0
        while not stop.wait(HEARTBEAT_SECONDS):
            count += 1
            try:
                trial.set_user_attr(HEARTBEAT, count)
            except UpdateFinishedTrialError:
                return  # another worker considers this one dead; Optuna refuses the trial's result as well
            except Exception:  # a lost connection: the next heartbeat may succeed
                logger.warning("A heartbeat of trial %d could not be stored.", trial.number, exc_info=True)

    trial.set_user_attr(WORKER, this_worker())
    trial.set_user_attr(HEARTBEAT, 0)
    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class StaleTrials:
    """Finds the trials of dead workers in a study and queues them again.

    A running trial is stale if its process on this machine has ended, or if this process has seen its heartbeat
    unchanged for `GRACE_SECONDS`. The clocks of two machines are never compared.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._seen: dict[int, tuple[Any, float]] = {}  # trial number -> heartbeat, and when it was first seen

    def requeue(self) -> None:
        """Fail every stale trial and queue a copy of it, at most `MAX_RETRIES` times."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            now, beat = time.monotonic(), trial.user_attrs.get(HEARTBEAT)
            if trial.number not in self._seen or self._seen[trial.number][0] != beat:
                self._seen[trial.number] = (beat, now)
            silent = now - self._seen[trial.number][1] > GRACE_SECONDS
            if not silent and not has_died(trial.user_attrs.get(WORKER)):
                continue
            try:
                self._study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, UpdateFinishedTrialError):
                continue  # it ended in the meantime, or another worker has queued it again
            failed = copy.deepcopy(trial)
            failed.user_attrs = {k: v for k, v in failed.user_attrs.items() if k not in (WORKER, HEARTBEAT)}
            storages.RetryHeartbeatStaleTrialCallback(MAX_RETRIES)(self._study, failed)


def this_worker() -> str:
    """Return a name for this process that is unique across machines: machine, process id, start time."""
    return f"{_machine()} {os.getpid()} {psutil.Process().create_time():.2f}"


def has_died(worker: str | None) -> bool:
    """Return whether `worker` was a process of this machine that has ended; False if that is unknown."""
    if worker is None:
        return False
    machine, pid, start = worker.rsplit(" ", 2)
    if machine != _machine():
        return False
    try:
        process = psutil.Process(int(pid))
        return bool(process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - float(start)) > 1)
    except psutil.NoSuchProcess:
        return True


@functools.cache
def _machine() -> str:
    """Identify the scope of process ids: host name, boot of the kernel, and process-id namespace."""
    found = [socket.gethostname()]
    with contextlib.suppress(OSError):  # outside Linux the host name alone is used
        found += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return "/".join(found)


def _check_identity(study: optuna.Study, identity: Mapping[str, Any]) -> bool:
    """Whether the study has an identity. Raises `RequestError` if it is another one."""
    theirs = study.user_attrs
    if _IDENTITY[-1] not in theirs:
        return False
    if found := difference(theirs, identity):
        raise RequestError(
            f"The study {study.study_name!r} was made for something else ({found}): "
            "give another study name or --output."
        )
    return True


def _open_with_retries(url: str) -> BaseStorage:
    """Open `url`, again if another process creates the same tables at the same time."""
    for _ in range(_RETRIES):
        try:
            return _open(url)
        except (IntegrityError, ProgrammingError, OperationalError) as error:
            if not isinstance(error, IntegrityError) and "already exists" not in str(error):
                raise
            time.sleep(0.5)
    return _open(url)


def _open(url: str) -> BaseStorage:
    kind, _, place = url.partition(":")
    if kind == "journal":
        path = Path(place.removeprefix("//"))
        path.parent.mkdir(parents=True, exist_ok=True)
        return storages.JournalStorage(JournalFileBackend(str(path)))
    if kind in ("redis", "rediss"):
        return storages.JournalStorage(JournalRedisBackend(url))
    if kind == "grpc":
        host, colon, port = place.strip("/").rpartition(":")
        if not colon or not port.isdecimal():
            raise ValueError("write grpc://HOST:PORT")
        proxy = storages.GrpcStorageProxy(host=host, port=int(port))
        proxy.wait_server_ready(timeout=CONNECT_SECONDS)
        return proxy
    # SQLite's `timeout` is how long it waits for another process's write; PostgreSQL and MySQL use the other word.
    wait = {"timeout" if kind.startswith("sqlite") else "connect_timeout": CONNECT_SECONDS}
    storage = storages.RDBStorage(url, engine_kwargs={"connect_args": wait, "pool_pre_ping": True})
    if kind.startswith("sqlite"):
        _lock_before_reading(storage.engine)
    return storage


def _lock_before_reading(engine: Engine) -> None:
    """Start every transaction with a write lock: SQLite ignores Optuna's `FOR UPDATE` when it claims a trial."""
    engine.dispose()  # connections that are open already would not be configured

    @event.listens_for(engine, "connect")
    def leave_transactions_to_sqlalchemy(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
