"""One study, several processes, some of which are killed: each depth is trained once, and none is lost."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import pytest
from search_process import SETTINGS, Log, options, start

from adaptivefreeze import RequestError
from adaptivefreeze.search import search
from adaptivefreeze.search import storage as storage_module
from adaptivefreeze.search.storage import has_died, open_storage, this_worker

ALL = {f"bottom-up:{depth} 0" for depth in range(5)}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def postgresql():
    """Start a PostgreSQL server and return its URL; root starts it as the user `nobody`, because it refuses root."""
    if not shutil.which("initdb") or not shutil.which("pg_ctl"):
        pytest.skip("no PostgreSQL server is installed (initdb, pg_ctl)")
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL is installed (psycopg)")
    folder, port = Path(tempfile.mkdtemp(prefix="adaptivefreeze-pg-")), free_port()
    as_user = {}
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
        as_user = {"user": "nobody"}

    def call(*words):
        done = subprocess.run(
            words, **as_user, cwd=folder, stdout=(folder / "said").open("w"), stderr=subprocess.STDOUT
        )
        assert done.returncode == 0, (folder / "said").read_text()

    try:
        call("initdb", "-D", folder / "data", "-U", "tester", "-A", "trust", "--no-sync")
        settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        call("pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o", settings, "start")
        yield f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"
    finally:
        with contextlib.suppress(AssertionError):
            call("pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def grpc(tmp_path):
    """The URL of a gRPC proxy before an SQLite file."""
    pytest.importorskip("grpc", reason="grpcio is not installed")
    port = free_port()
    opened = f"optuna.storages.RDBStorage('sqlite:///{tmp_path}/p.db')"
    code = f"import optuna; optuna.storages.run_grpc_proxy_server({opened}, port={port})"
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield f"grpc://localhost:{port}"
    server.kill()
    server.wait()


@pytest.fixture
def url(request, tmp_path):
    """The storage that a test is about."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shared.db"
    if request.param == "journal":
        return f"journal:{tmp_path}/shared.journal"
    if request.param == "postgresql":
        # Each test has a study of its own: the name is the same, the database is not.
        base = request.getfixturevalue("postgresql")
        import psycopg

        name = f"db{time.monotonic_ns()}"
        with psycopg.connect(base.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return base.removesuffix("postgres") + name
    return request.getfixturevalue(request.param)


def wait_for(path, process):
    until = time.monotonic() + 300
    while not Path(path).exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.05)


def begun(log):
    return log.read_text().split("\n")[:-1] if log.exists() else []


def finished(url, output):
    study = optuna.load_study(study_name="tiny", storage=open_storage(url, output))
    done = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    assert not [
        t for t in study.trials if t.state in (optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.WAITING)
    ]
    return sorted(trial.params["depth"] for trial in done)


@pytest.mark.parametrize("url", ["sqlite", "postgresql", "grpc"], indirect=True)
def test_killed_in_the_middle_of_a_trial_it_loses_that_trial_alone(url, task, tiny_folder, tmp_path):
    output, log = tmp_path / "s", tmp_path / "first"
    process = start(tiny=tiny_folder, output=output, log=log, storage=url, hang=2)
    wait_for(f"{log}.hangs", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert begun(log) == ["bottom-up:0 0", "bottom-up:1 0"]
    again = tmp_path / "again"
    answer = search(task, options(url), settings=SETTINGS, output=output, progress=Log(again))
    assert sorted(begun(again)) == sorted(ALL - {"bottom-up:0 0"})
    assert finished(url, output) == [0, 1, 2, 3, 4]
    assert len(answer.outcomes) == 5


@pytest.mark.parametrize("url", ["journal", "postgresql"], indirect=True)
def test_two_workers_share_the_trials_and_the_one_that_lives_runs_those_of_the_dead(url, tiny_folder, tmp_path):
    output = tmp_path / "s"
    logs = [tmp_path / "dies", tmp_path / "lives"]
    dies = start(tiny=tiny_folder, output=output, log=logs[0], storage=url, hang=1)
    wait_for(f"{logs[0]}.hangs", dies)
    lives = start(tiny=tiny_folder, output=output, log=logs[1], storage=url)
    wait_for(logs[1], lives)
    dies.send_signal(signal.SIGKILL)
    dies.communicate()
    said, _ = lives.communicate(timeout=300)
    assert lives.returncode == 0, said
    assert begun(logs[0]) == ["bottom-up:0 0"]
    assert sorted(begun(logs[1])) == sorted(ALL)
    assert begun(logs[1])[0] == "bottom-up:1 0"  # while the other one had depth 0
    assert finished(url, output) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("url", ["sqlite", "journal"], indirect=True)
def test_two_workers_that_begin_together_train_nothing_twice(url, tiny_folder, tmp_path):
    logs = [tmp_path / "one", tmp_path / "two"]
    workers = [start(tiny=tiny_folder, output=tmp_path / "s", log=log, storage=url) for log in logs]
    for worker in workers:
        said, _ = worker.communicate(timeout=300)
        assert worker.returncode == 0, said
    assert sorted([*begun(logs[0]), *begun(logs[1])]) == sorted(ALL)
    assert finished(url, tmp_path / "s") == [0, 1, 2, 3, 4]


def test_a_silent_trial_of_another_machine_is_run_again(task, tmp_path, monkeypatch):
    """Its heartbeat has stopped, as observed by this process."""
    monkeypatch.setattr(storage_module, "GRACE_SECONDS", 1)
    url = f"journal:{tmp_path}/shared.journal"
    first = search(task, options(url), settings=SETTINGS, output=tmp_path / "s")
    storage = open_storage(url, tmp_path)
    study = optuna.load_study(study_name="tiny", storage=storage)
    stuck = study.ask()
    stuck.set_user_attr("scenario", "bottom-up:3")
    stuck.set_user_attr("replicates", ["seed 1"])
    stuck.set_user_attr("role", "depth")
    stuck.set_user_attr("worker", "elsewhere 1 1.0")
    search(task, options(url), settings=SETTINGS, output=tmp_path / "s", progress=Log(tmp_path / "again"))
    assert begun(tmp_path / "again") == ["bottom-up:3 1"]
    assert study.trials[stuck.number].state == optuna.trial.TrialState.FAIL
    assert len(first.outcomes) == 5


def test_a_running_trial_renews_its_heartbeat_until_it_ends(monkeypatch):
    monkeypatch.setattr(storage_module, "HEARTBEAT_SECONDS", 0.01)
    study = optuna.create_study()
    trial = study.ask()
    with storage_module.heartbeat(trial):
        until = time.monotonic() + 60
        while study.trials[0].user_attrs["heartbeat"] < 3:
            assert time.monotonic() < until
            time.sleep(0.01)
    last = study.trials[0].user_attrs["heartbeat"]
    time.sleep(0.1)
    assert study.trials[0].user_attrs["heartbeat"] == last
    assert study.trials[0].user_attrs["worker"] == this_worker()


def test_a_stale_trial_is_queued_again_twice_and_no_more(monkeypatch):
    monkeypatch.setattr(storage_module, "GRACE_SECONDS", -1)
    study = optuna.create_study()
    study.enqueue_trial({}, user_attrs={"scenario": "bottom-up:1"})
    for _ in range(3):
        study.ask().set_user_attr("worker", "elsewhere 1 1.0")
        with storage_module.quiet_optuna():
            storage_module.StaleTrials(study).requeue()
    assert [t.user_attrs.get("scenario") for t in study.trials] == ["bottom-up:1"] * 3
    assert all(trial.state == optuna.trial.TrialState.FAIL for trial in study.trials)


def test_who_is_dead_and_who_is_not():
    assert not has_died(this_worker())
    assert not has_died(None)
    assert not has_died("elsewhere 1 1.0")
    machine, pid, start_ = this_worker().rsplit(" ", 2)
    assert has_died(f"{machine} {pid} {float(start_) - 100:.2f}")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert has_died(f"{machine} {gone.pid} {start_}")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("grpc://localhost", "write grpc://HOST:PORT"),
        ("postgresql+psycopg://me:secret@127.0.0.1:{port}/x", "does not answer"),
        ("grpc://localhost:{port}", "does not answer"),
        ("redis://localhost:{port}", "storage redis"),
        ("mysql://localhost/x", "storage mysql"),
        ("nonsense", "storage nonsense"),
    ],
)
def test_a_storage_that_does_not_answer_is_one_sentence(url, words, tmp_path, monkeypatch):
    monkeypatch.setattr(storage_module, "CONNECT_SECONDS", 1)
    with pytest.raises(RequestError, match=words) as refused:
        open_storage(url.format(port=free_port()), tmp_path)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    (tmp_path / "study.db").write_text("my notes\n" * 100)
    with pytest.raises(RequestError, match="does not answer as a storage"):
        open_storage(None, tmp_path)
    assert (tmp_path / "study.db").read_text() == "my notes\n" * 100
