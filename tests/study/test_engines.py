"""Tasks are done once each, in their order, whatever dies; and memory does not grow with their number."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nigradat.errors import ConfigError, MissingExtraError, NigradatError
from nigradat.study import engines
from nigradat.study.engines import Engine, Outcome, Task, make_engine, run_tasks

HERE = Path(__file__).parent


@pytest.fixture
def engine() -> Iterator[Engine]:
    with make_engine("processes", tasks=2, workers=2, device="cpu") as (engine, _):
        yield engine


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def done(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def fake(key: str, log: Path, *after: str, call: str = "note") -> Task:
    return Task(key, f"fake_tasks:{call}", {"log": str(log), "key": key}, after)


def outcomes(tasks: list[Task], engine: Engine) -> dict[str, Outcome]:
    found: list[Outcome] = []
    run_tasks(tasks, engine, ended=found.append)
    assert len({o.key for o in found}) == len(found)
    return {o.key: o for o in found}


def wait_until(what: Callable[[], object]) -> None:
    """No limit of its own: a test that never gets there ends by the suite's."""
    while not what():
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_each_task_is_done_once_and_after_those_that_it_waits_for(engine, log):
    tasks = [fake("c", log, "a", "b"), fake("a", log), fake("b", log, "a"), fake("d", log, "never there")]
    found = outcomes(tasks, engine)
    assert sorted(done(log)) == ["a", "b", "c", "d"]
    assert [key for key in done(log) if key != "d"] == ["a", "b", "c"]
    assert {o.state for o in found.values()} == {"done"}


def test_two_tasks_of_one_name_are_refused(engine, log):
    with pytest.raises(ValueError, match="the same key"):
        run_tasks([fake("a", log), fake("a", log)], engine)


def test_what_a_library_prints_is_no_answer(engine, log):
    assert outcomes([fake("a", log, call="chatter"), fake("b", log)], engine)["a"].state == "done"
    assert sorted(done(log)) == ["a", "b"]


def test_a_task_whose_worker_is_killed_is_done_again_and_the_others_go_on(engine, log):
    tasks = [fake("victim", log, call="die_once"), *(fake(f"t{i}", log) for i in range(6)), fake("last", log, "victim")]
    found = outcomes(tasks, engine)
    assert Counter(done(log)) == {task.key: 1 for task in tasks}
    assert {o.state for o in found.values()} == {"done"}


def test_a_task_that_always_dies_is_given_up_with_the_reason(engine, log):
    tasks = [Task("a", "fake_tasks:die", {}), Task("b", "fake_tasks:exit_with_words", {}), fake("c", log, "a", "b")]
    found = outcomes(tasks, engine)
    assert found["a"].state == found["b"].state == "died"
    assert "signal 9" in found["a"].note
    assert "status 3 (no room on the moon)" in found["b"].note
    assert found["c"].state == "done"


def test_a_worker_that_cannot_be_started_is_reported(monkeypatch):
    def no_memory(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", no_memory)
    with make_engine("processes", tasks=1, workers=1, device="cpu") as (engine, _):
        found = outcomes([Task("a", "fake_tasks:fail", {})], engine)
    assert found["a"].state == "died"
    assert "could not be started" in found["a"].note
    assert "Cannot allocate memory" in found["a"].note


def test_a_failure_is_reported_and_the_others_go_on(engine, log):
    found = outcomes([Task("a", "fake_tasks:fail", {}), fake("b", log, "a")], engine)
    assert found["a"] == Outcome("a", "failed", "it diverged")
    assert found["b"].state == "done"


def test_what_somebody_else_is_at_is_asked_for_again(engine, log):
    assert outcomes([fake("a", log, call="busy_once"), fake("b", log, "a")], engine)["a"].state == "done"
    assert done(log) == ["a", "b"]


def test_an_error_that_would_stop_all_stops_all(engine, log):
    with pytest.raises(NigradatError, match="a: the disk is full"):
        run_tasks([Task("a", "fake_tasks:refuse", {}), fake("b", log, "a")], engine)
    assert done(log) == []


def test_a_fault_of_the_program_shows_its_traceback(engine):
    with pytest.raises(RuntimeError, match=r"(?s)a met a fault.*break_down.*ZeroDivisionError: one over nothing"):
        run_tasks([Task("a", "fake_tasks:break_down", {})], engine)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of this process is read from /proc")
def test_five_hundred_tasks_take_no_more_memory_than_a_hundred(engine, log):
    resident: dict[int, int] = {}
    count = 0

    def ended(_: Outcome) -> None:
        nonlocal count
        count += 1
        if count in (100, 500):
            resident[count] = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    tasks = [fake(f"t{i}", log) for i in range(500)]
    run_tasks(tasks, engine, ended=ended)
    assert Counter(done(log)) == {task.key: 1 for task in tasks}
    assert resident[500] - resident[100] < 4e6


def test_workers_end_with_their_engine(tmp_path):
    pid_file = tmp_path / "pid"
    with make_engine("processes", tasks=1, workers=1, device="cpu") as (engine, _):
        engine.start(Task("long", "fake_tasks:sleep", {"pid_file": str(pid_file)}))
        wait_until(lambda: pid_file.exists() and pid_file.read_text())
        assert is_running(int(pid_file.read_text()))
    assert not is_running(int(pid_file.read_text()))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(how, tmp_path):
    pid_file = tmp_path / "pid"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.Popen(
        [sys.executable, str(HERE / "fake_tasks.py"), str(tmp_path)], env=environment, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: pid_file.exists() and pid_file.read_text())
    parent.send_signal(how)
    assert parent.wait() != 0
    wait_until(lambda: not is_running(int(pid_file.read_text())))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "threads"}, "no engine is called 'threads'"),
        ({"name": "processes", "workers": 0}, "0 workers"),
        ({"name": "processes", "address": "auto"}, "Say --engine ray"),
    ],
)
def test_engines_that_do_not_exist_are_refused(arguments, words):
    with pytest.raises(ConfigError, match=words), make_engine(**arguments, tasks=1):
        pass


@pytest.mark.parametrize(("need_gpu", "most"), [(False, 16), (True, 8)])
def test_on_a_cluster_no_task_asks_for_more_cores_than_one_machine_has(need_gpu, most):
    """Ray would let it wait forever."""
    nodes = [
        {"Alive": True, "Resources": {"CPU": 16.0}},
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 4.0}},
    ]
    assert engines._cores_of_one(nodes, need_gpu) == most
    assert engines._share(1, None, 24, int(need_gpu), most) == (1, most)  # the last task of a study has 24 otherwise
    assert engines._share(6, 6, 24, 0, most) == (6, 4)


def test_ray_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"nigradat\[ray\]"), make_engine("ray", tasks=1):
        pass


def test_ray_loses_nothing_and_does_nothing_twice_when_a_worker_is_killed(log, local_ray):
    tasks = [
        fake("victim", log, call="die_once"),
        *(fake(f"t{i}", log) for i in range(5)),
        fake("z", log, "victim"),
    ]
    with make_engine("ray", tasks=len(tasks), workers=2, device="cpu") as (engine, threads):
        assert (engine.slots, threads) == (2, 1)
        found = outcomes([*tasks, Task("failing", "fake_tasks:fail", {})], engine)
    assert Counter(done(log)) == {task.key: 1 for task in tasks}
    assert {key: o.state for key, o in found.items() if o.state != "done"} == {"failing": "failed"}
    assert local_ray.is_initialized()  # a cluster that was there before is left running
