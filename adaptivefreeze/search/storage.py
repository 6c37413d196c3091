"""Storage: where the Optuna study lies, and how a worker that died is noticed, whatever kind of storage it is."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import time
import warnings
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import psutil
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from ..errors import RequestError

if TYPE_CHECKING:
    from optuna import Study

CONNECT_SECONDS = 10
HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 60
MAX_RETRIES = 2
_ATTEMPTS = 5
WORKER = "worker"  # user attribute of a trial: who runs it

_BEAT = "adaptivefreeze:heartbeat"
_HEARD_ELSEWHERE = object()


def open_storage(url: str | None, output: Path) -> BaseStorage:
    """The storage that `url` names; None is SQLite, in `study.db` under `output`.

    `journal:FILE`, `grpc://HOST:PORT`, `redis://…` (as a journal), or the URL of any database that SQLAlchemy has a
    driver for. Raises `RequestError` when nothing answers within `CONNECT_SECONDS`, or what answers is no storage.
    """
    url = url or f"sqlite:///{output / 'study.db'}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return _open_beside_others(url)
    except ImportError as error:
        # grpcio and protobuf bring modules of other names.
        missing = (
            "packages grpcio and protobuf" if url.startswith("grpc") else f"package {error.name or 'of its driver'}"
        )
        raise RequestError(f"--storage {public(url)} needs the {missing}: install what is missing.") from error
    except Exception as error:  # a driver each, with exceptions of its own; all mean the same here
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RequestError(
            f"--storage {public(url)} does not answer as a storage for Optuna ({reason.rstrip('.')[:200]}): "
            "check that it runs and that the address is right."
        ) from error


def this_worker() -> str:
    """This process, as no other in the world is called: machine, process id, start."""
    return f"{_machine()} {os.getpid()} {psutil.Process().create_time():.2f}"


def has_died(worker: str | None) -> bool:
    """Whether `worker` was a process of this machine and is none any more; False for one that is not known."""
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
    """Where process ids mean the same: host name, this start of the kernel, and the container's own numbering."""
    found = [socket.gethostname()]
    with contextlib.suppress(OSError):  # other systems than Linux: the host name has to do
        found += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return "/".join(found)


class _Retry(RetryHeartbeatStaleTrialCallback):
    """Queues the trial of a dead worker again, without the dead worker's name."""

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        trial.user_attrs = {name: value for name, value in trial.user_attrs.items() if name != WORKER}
        super().__call__(study, trial)


class _Watched(BaseStorage):
    """What all storages below share: a trial is stale when its process on this machine has gone, or when nothing of
    it has changed for `GRACE_SECONDS` before this process's eyes. The clocks of two machines are never compared."""

    _seen: dict[int, tuple[Any, float]]

    def _abandoned(self, study_id: int) -> list[int]:
        seen: dict[int, tuple[Any, float]] = vars(self).setdefault("_seen", {})
        now, stale = time.monotonic(), []
        for trial in self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,)):
            sign = self._sign_of_life(trial)
            if trial._trial_id not in seen or seen[trial._trial_id][0] != sign:
                seen[trial._trial_id] = (sign, now)
            silent = sign is not _HEARD_ELSEWHERE and now - seen[trial._trial_id][1] > GRACE_SECONDS
            if silent or has_died(trial.user_attrs.get(WORKER)):
                stale.append(trial._trial_id)
        return stale

    @abstractmethod
    def _sign_of_life(self, trial: FrozenTrial) -> Any:
        """Something that changes for as long as the trial's worker lives."""


class _Database(RDBStorage, _Watched):
    """A database, with Optuna's own heartbeats."""

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        return sorted({*super()._get_stale_trial_ids(study_id), *self._abandoned(study_id)})

    def _sign_of_life(self, trial: FrozenTrial) -> Any:
        # A worker that was killed between claiming and saying its name may have left no heartbeat.
        return _HEARD_ELSEWHERE if WORKER in trial.user_attrs else None


class _Beating(_Watched, BaseHeartbeat):
    """Heartbeats for a storage that has none of its own, as a system attribute of the trial."""

    def record_heartbeat(self, trial_id: int) -> None:
        self.set_trial_system_attr(trial_id, _BEAT, time.time())

    def get_heartbeat_interval(self) -> int | None:
        return HEARTBEAT_SECONDS

    def get_heartbeat_stale_trial_callback(self) -> Callable[[Study, FrozenTrial], None] | None:
        return _Retry(MAX_RETRIES)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        return self._abandoned(study_id)

    def _sign_of_life(self, trial: FrozenTrial) -> Any:
        return trial.system_attrs.get(_BEAT)


class _Journal(_Beating, JournalStorage):
    """A journal in a file or in Redis."""


class _Proxy(_Beating, GrpcStorageProxy):
    """A storage behind Optuna's gRPC server."""


def _open_beside_others(url: str) -> BaseStorage:
    """`_open`, again where another process is making the same tables at this very moment."""
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
        return _Journal(JournalFileBackend(str(path)))
    if kind in ("redis", "rediss"):
        return _Journal(JournalRedisBackend(url))
    if kind == "grpc":
        host, colon, port = place.strip("/").rpartition(":")
        if not colon or not port.isdecimal():
            raise ValueError("write grpc://HOST:PORT")
        proxy = _Proxy(host=host, port=int(port))
        proxy.wait_server_ready(timeout=CONNECT_SECONDS)
        return proxy
    # The drivers of PostgreSQL and MySQL share this word; SQLite's is how long it waits for another's write.
    waits = {"timeout" if kind.startswith("sqlite") else "connect_timeout": CONNECT_SECONDS}
    return optuna.storages.get_storage(
        _Database(
            url,
            engine_kwargs={"connect_args": waits, "pool_pre_ping": True},
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            heartbeat_stale_trial_callback=_Retry(MAX_RETRIES),
        )
    )


def public(url: str) -> str:
    """`url` without a password."""
    scheme, slashes, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{slashes}{user.partition(':')[0]}{at}{host}"
