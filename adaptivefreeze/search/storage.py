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
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
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

_ATTEMPTS = 5
_CREATION_SECONDS = 10.0
_IDENTITY = ("schema", "task", "model", "settings", "search")


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """Open an Optuna storage.

    Args:
        url: `journal:FILE`, `grpc://HOST:PORT`, `redis://…` (used as a journal), or the URL of a database that
            SQLAlchemy has a driver for. None means SQLite, in `study.db` under `folder`.
        folder: The output folder of the search.

    Raises:
        RequestError: If nothing answers within `CONNECT_SECONDS`, or what answers is not an Optuna storage.
    """
    url = url or f"sqlite:///{folder / 'study.db'}"
    try:
        with quiet_optuna():
            return _open_with_retries(url)
    except ImportError as error:
        # The modules of grpcio and protobuf have other names than their packages.
        missing = (
            "packages grpcio and protobuf" if url.startswith("grpc") else f"package {error.name or 'of its driver'}"
        )
        raise RequestError(f"--storage {public_url(url)} needs the {missing}: install what is missing.") from error
    except Exception as error:  # every driver has exceptions of its own
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RequestError(
            f"--storage {public_url(url)} does not answer as a storage for Optuna ({reason.rstrip('.')[:200]}): "
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
    """Load the study `name`, or create it with `identity`, what it is about, in its user attributes.

    Raises:
        RequestError: If the study was made for another task, model or kind of search. The study is not changed.
    """
    with quiet_optuna():
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=list(directions.values()),
                sampler=sampler,
                pruner=pruner or optuna.pruners.NopPruner(),
            )
        except DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=name, sampler=sampler, pruner=pruner)
        else:
            study.set_metric_names(list(directions))
            for part in _IDENTITY:  # the last one is there only when all others are
                study.set_user_attr(part, identity[part])
            return study
    _check_identity(study, identity)
    return study


def check_study(storage: BaseStorage, name: str, identity: Mapping[str, Any]) -> None:
    """Raise `RequestError` if there is a study `name` that was made for something else. Nothing is changed."""
    with quiet_optuna():
        if name in optuna.get_all_study_names(storage):
            _check_identity(optuna.load_study(storage=storage, study_name=name), identity)


@contextmanager
def heartbeat(trial: Trial) -> Iterator[None]:
    """Mark `trial` as run by this process, and renew its heartbeat while the body runs.

    The heartbeat is an ordinary user attribute, so it works with every storage; Optuna's own needs a database.
    """
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

    A running trial is stale if its process on this machine has ended, or if its heartbeat has not changed for
    `GRACE_SECONDS` as observed by this process. The clocks of two machines are never compared.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._seen: dict[int, tuple[Any, float]] = {}  # trial number -> heartbeat, and when it was first seen

    def requeue(self) -> None:
        """Fail every stale trial and queue a copy of it, at most `MAX_RETRIES` times."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not self._is_stale(trial):
                continue
            try:
                self._study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, UpdateFinishedTrialError):
                continue  # it ended in the meantime, or another worker has queued it again
            failed = copy.deepcopy(trial)
            failed.user_attrs = {k: v for k, v in failed.user_attrs.items() if k not in (WORKER, HEARTBEAT)}
            RetryHeartbeatStaleTrialCallback(MAX_RETRIES)(self._study, failed)

    def _is_stale(self, trial: FrozenTrial) -> bool:
        now, beat = time.monotonic(), trial.user_attrs.get(HEARTBEAT)
        if trial.number not in self._seen or self._seen[trial.number][0] != beat:
            self._seen[trial.number] = (beat, now)
        return now - self._seen[trial.number][1] > GRACE_SECONDS or has_died(trial.user_attrs.get(WORKER))


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


@functools.cache
def _machine() -> str:
    """Identify the scope of process ids: host name, boot of the kernel, and process-id namespace."""
    found = [socket.gethostname()]
    with contextlib.suppress(OSError):  # outside Linux the host name alone is used
        found += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return "/".join(found)


def _check_identity(study: optuna.Study, identity: Mapping[str, Any]) -> None:
    until = time.monotonic() + _CREATION_SECONDS
    while _IDENTITY[-1] not in study.user_attrs and time.monotonic() < until:
        time.sleep(0.1)  # another process may be creating the study at this moment
    theirs, name = study.user_attrs, study.study_name
    if _IDENTITY[-1] not in theirs:
        raise RequestError(f"The study {name!r} was made by another program: give another --study-name.")
    found = difference(theirs, identity)
    if found:
        raise RequestError(
            f"The study {name!r} was made for something else ({found}): give another --study-name or --output."
        )


def _open_with_retries(url: str) -> BaseStorage:
    """Open `url`, again if another process creates the same tables at the same time."""
    for attempt in range(_ATTEMPTS):
        try:
            return _open(url)
        except (IntegrityError, ProgrammingError, OperationalError) as error:
            clash = isinstance(error, IntegrityError) or "already exists" in str(error)
            if not clash or attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.5)
    raise RuntimeError("no attempt was made")


def _open(url: str) -> BaseStorage:
    kind, _, place = url.partition(":")
    if kind == "journal":
        path = Path(place.removeprefix("//"))
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path)))
    if kind in ("redis", "rediss"):
        return JournalStorage(JournalRedisBackend(url))
    if kind == "grpc":
        host, colon, port = place.strip("/").rpartition(":")
        if not colon or not port.isdecimal():
            raise ValueError("write grpc://HOST:PORT")
        proxy = GrpcStorageProxy(host=host, port=int(port))
        proxy.wait_server_ready(timeout=CONNECT_SECONDS)
        return proxy
    # SQLite's `timeout` is how long it waits for another process's write; PostgreSQL and MySQL use the other word.
    wait = {"timeout" if kind.startswith("sqlite") else "connect_timeout": CONNECT_SECONDS}
    storage = RDBStorage(url, engine_kwargs={"connect_args": wait, "pool_pre_ping": True})
    if kind.startswith("sqlite"):
        _lock_before_reading(storage.engine)
    return storage


def _lock_before_reading(engine: Engine) -> None:
    """Start every transaction with a write lock, because SQLite ignores `SELECT … FOR UPDATE`.

    Optuna claims a waiting trial by reading and then writing its state; without the lock two workers can claim the
    same trial.
    """
    engine.dispose()  # connections that are open already would not be configured

    @event.listens_for(engine, "connect")
    def leave_transactions_to_sqlalchemy(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
