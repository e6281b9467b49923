"""Where independent tasks are done: in processes of this machine, or on a Ray cluster.

A :class:`Task` names a function and its plain arguments; the function finds its work, and leaves its result, on the
disk. So a task may be done again at any time, and what crosses a process border is a line of JSON. The function returns
None (done) or a pair of state and note; see :data:`State`. Tasks are started only as workers become free: hundreds of
them take no more memory than one.
"""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Literal, Protocol

from nigradat.errors import ConfigError, MissingExtraError, NigradatError

ENGINES: Final = ("processes", "ray")
State = Literal["done", "failed", "busy", "died", "refused", "broken"]
"""done; failed: noted as such on disk, the others go on; busy: another process is at it, ask again later; died: the
worker was killed; refused: an error that the user can mend; broken: a fault of the program."""

_ATTEMPTS: Final = 3  # of a task whose worker dies
_POLL_S: Final = 0.5
_ASK_AGAIN_S: Final = 2.0
_TASKS_A_WORKER: Final = 20  # then a fresh process: what libraries leak does not add up
_MALLOC: Final = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(1 << 28))  # see phantom.cohort


@dataclass(frozen=True)
class Task:
    """One unit of work.

    Attributes:
        key: its name, unique.
        call: ``module:function``.
        arguments: keyword arguments, plain JSON values.
        after: keys of tasks that must have ended, well or not, before this one begins.
    """

    key: str
    call: str
    arguments: Mapping[str, Any]
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a task ended, with a reason where that is needed."""

    key: str
    state: State
    note: str = ""


class Engine(Protocol):
    """What :func:`run_tasks` needs."""

    slots: int

    def start(self, task: Task) -> None:
        """Begin a task; at most ``slots`` at a time."""

    def wait(self, seconds: float) -> list[Outcome]:
        """What has ended by now; waits up to so long for the first."""

    def close(self) -> None:
        """End everything that is still running."""


def run_tasks(
    tasks: Sequence[Task],
    engine: Engine,
    *,
    ended: Callable[[Outcome], None] = lambda _: None,
    tick: Callable[[Sequence[str]], None] = lambda _: None,
) -> None:
    """Do all tasks, each after those that it waits for.

    A task whose worker dies is done again, three times in all; then, if it is still unfinished, ``ended`` hears of it
    as ``died``. A task that another process holds is asked for again until that process has finished it.

    Args:
        tasks: with unique keys; ``after`` may name keys that are not among them (they count as ended).
        engine: where to work; closed by the caller.
        ended: told once for each task: done, failed or died.
        tick: told every half second or so which keys are being worked on.

    Raises:
        NigradatError: a task was refused, for a reason that would refuse the others, too.
        RuntimeError: a fault of the program, with the worker's traceback.
    """
    waiting = {task.key: task for task in tasks}
    if len(waiting) != len(tasks):
        raise ValueError("two tasks have the same key")
    running: dict[str, Task] = {}
    not_before: dict[str, float] = {}
    deaths: dict[str, int] = {}
    while waiting or running:
        for task in _ready(waiting, running, not_before, engine.slots - len(running)):
            running[task.key] = waiting.pop(task.key)
            engine.start(task)
        for outcome in engine.wait(_POLL_S):
            task = running.pop(outcome.key)
            if outcome.state == "refused":
                raise NigradatError(f"{task.key}: {outcome.note}")
            if outcome.state == "broken":
                raise RuntimeError(f"{task.key} met a fault of the program:\n{outcome.note}")
            if outcome.state == "died":
                deaths[task.key] = deaths.get(task.key, 0) + 1
            if outcome.state == "busy":
                # not in step with a process that asks for the same task
                not_before[task.key] = time.monotonic() + _ASK_AGAIN_S * random.uniform(0.5, 1.5)
            if outcome.state == "busy" or (outcome.state == "died" and deaths[task.key] < _ATTEMPTS):
                waiting[task.key] = task
            else:
                ended(outcome)
        tick(tuple(running))


def _ready(
    waiting: Mapping[str, Task], running: Mapping[str, Task], not_before: Mapping[str, float], free: int
) -> list[Task]:
    """Tasks that may begin now, in their order, no more than there are free slots."""
    now = time.monotonic()
    ready: list[Task] = []
    for task in waiting.values():
        if len(ready) >= free:
            break
        if not_before.get(task.key, now) <= now and not any(key in waiting or key in running for key in task.after):
            ready.append(task)
    return ready


@contextmanager
def make_engine(
    name: str, *, tasks: int, workers: int | None = None, address: str | None = None, device: str = "auto"
) -> Iterator[tuple[Engine, int]]:
    """An engine and the CPU threads that each of its tasks may use; it is closed when the block ends.

    Args:
        name: ``processes`` or ``ray``.
        tasks: how many there are to do; there are never more workers than that.
        workers: tasks at a time; default one a GPU, or one for every two cores.
        address: of a Ray cluster (``auto`` finds the one that this machine belongs to); default a local one.
        device: ``cpu`` leaves GPUs alone.

    Raises:
        ConfigError: no such engine, no workers, an address without Ray, or no cluster there.
        MissingExtraError: Ray is not installed.
    """
    check_engine(name, workers, address)
    engine = _RayEngine(tasks, workers, address, device) if name == "ray" else _ProcessEngine(tasks, workers, device)
    try:
        yield engine, engine.threads
    finally:
        engine.close()


def check_engine(name: str, workers: int | None = None, address: str | None = None) -> None:
    """Refuse what :func:`make_engine` would refuse, before any work.

    Raises:
        ConfigError, MissingExtraError: as there.
    """
    if name not in ENGINES:
        raise ConfigError(f"no engine is called '{name}'", " or ".join(ENGINES))
    if workers is not None and workers < 1:
        raise ConfigError(f"{workers} workers", "at least 1")
    if address is not None and name != "ray":
        raise ConfigError(f"an address ({address}) for the engine '{name}'", "the engine 'ray'", "Say --engine ray")
    if name == "ray":
        _ray()


def perform(call: str, arguments: Mapping[str, Any]) -> tuple[State, str]:
    """Do a task in this process; its errors become states."""
    module, _, name = call.partition(":")
    try:
        answer: tuple[State, str] | None = getattr(import_module(module), name)(**arguments)
    except NigradatError as error:
        return "refused", str(error)
    except Exception:
        return "broken", traceback.format_exc()
    return answer or ("done", "")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus(device: str) -> int:
    if device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def _share(tasks: int, workers: int | None, cpus: int, gpus: int, most: int | None = None) -> tuple[int, int]:
    """How many tasks at a time, and with how many threads each; ``most`` are those of one machine of several."""
    usual = gpus or max(1, cpus // 2)
    count = max(1, min(tasks, workers or usual))
    return count, max(1, min(cpus // count, most or cpus))


def _cores_of_one(nodes: Sequence[Mapping[str, Any]], need_gpu: bool) -> int | None:
    """Cores of the largest living machine of a Ray cluster that a task may run on; no task can have more."""
    fitting = [
        node["Resources"] for node in nodes if node["Alive"] and (not need_gpu or node["Resources"].get("GPU", 0) >= 1)
    ]
    return max((int(resources.get("CPU", 0)) for resources in fitting), default=None)


# -- Processes ----------------------------------------------------------------------------------------------------


class _ProcessEngine:
    """One thread here for each worker process there; the thread feeds it a task at a time."""

    def __init__(self, tasks: int, workers: int | None, device: str) -> None:
        gpus = _gpus(device)
        self.slots, self.threads = _share(tasks, workers, cores(), gpus)
        self._jobs: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._closed = threading.Event()
        self._drivers = [
            threading.Thread(target=self._drive, args=({"CUDA_VISIBLE_DEVICES": str(i % gpus)} if gpus > 1 else {},))
            for i in range(self.slots)
        ]
        for driver in self._drivers:
            driver.start()

    def start(self, task: Task) -> None:
        self._jobs.put(task)

    def wait(self, seconds: float) -> list[Outcome]:
        found = []
        with suppress(queue.Empty):
            found.append(self._outcomes.get(timeout=seconds))
            while True:
                found.append(self._outcomes.get_nowait())
        return found

    def close(self) -> None:
        self._closed.set()
        for _ in self._drivers:
            self._jobs.put(None)
        for worker in list(self._workers):
            worker.kill()
        for driver in self._drivers:
            driver.join()

    def _drive(self, environment: Mapping[str, str]) -> None:
        worker: _Worker | None = None
        while (task := self._jobs.get()) is not None and not self._closed.is_set():
            try:
                if worker is None:
                    worker = _Worker(self.threads, environment)
                    self._workers.append(worker)
                    if self._closed.is_set():
                        break
                outcome = worker.do(task)
            except OSError as error:
                outcome = Outcome(task.key, "died", f"its process could not be started ({error})")
            except Exception:  # or the caller would wait for this thread for ever
                outcome = Outcome(task.key, "broken", traceback.format_exc())
            if worker is not None and (outcome.state in ("died", "broken") or worker.served >= _TASKS_A_WORKER):
                self._workers.remove(worker)
                worker.kill()
                worker = None
            self._outcomes.put(outcome)
        if worker is not None:
            worker.kill()


class _Worker:
    """A process of its own and not ``multiprocessing``: see :func:`nigradat.phantom.cohort._drive`. It ends with its
    standard input, so that it never outlives this process, however that ends."""

    def __init__(self, threads: int, environment: Mapping[str, str]) -> None:
        self.served = 0
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  what it prints; read when it dies
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from nigradat.study.engines import _serve; _serve()"],
            env={**os.environ, **_MALLOC, **limits, **path, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends its workers
        )

    def do(self, task: Task) -> Outcome:
        """Send the task and wait for the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answer = ""
        with suppress(OSError, ValueError):  # it is gone, or was closed here
            self._process.stdin.write(json.dumps({"call": task.call, "arguments": task.arguments}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        self.served += 1
        if answer.endswith("\n"):
            return Outcome(task.key, *json.loads(answer))
        code = self._process.wait()
        self._said.seek(0)
        words = self._said.read().decode(errors="replace").strip().splitlines()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return Outcome(task.key, "died", f"its process {how}{f' ({words[-1]})' if words else ''}")

    def kill(self) -> None:
        """End it now and wait until it has ended."""
        self._process.kill()
        self._process.wait()


def _serve() -> None:
    """A worker's life: tasks, one JSON object a line, and an answer for each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(1)  # the caller is gone: end in the middle of whatever it is

    threading.Thread(target=listen, daemon=True).start()
    while True:
        print(json.dumps(perform(**json.loads(lines.get()))), file=answers, flush=True)


# -- Ray ----------------------------------------------------------------------------------------------------------


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")  # a busy machine starts slowly
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "ray", "ray") from error
    return ray


class _RayEngine:
    """Tasks as Ray tasks. All machines must see the study folder and the cohort under the same path.

    A task whose worker is killed is done again by :func:`run_tasks`, as with processes, and not by Ray.
    """

    def __init__(self, tasks: int, workers: int | None, address: str | None, device: str) -> None:
        ray = _ray()
        self._ray, self._ours = ray, not ray.is_initialized()
        self._on_sigterm = signal.getsignal(signal.SIGTERM)  # Ray puts its own in its place
        quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "include_dashboard": False}
        if address is None:
            slots, self.threads = _share(tasks, workers, cores(), _gpus(device))
            quiet |= {"num_cpus": slots * self.threads}
            # the workers of a local cluster find what this process finds
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        else:
            quiet = {"log_to_driver": False, "configure_logging": False, "address": address}
        try:
            if self._ours:
                ray.init(**quiet)
        except Exception as error:  # Ray raises a bare one where its start takes too long
            where = "here" if address is None else f"at {address}"
            raise ConfigError(
                f"no Ray cluster {where} ({error})", "one that runs, or a machine that can start one"
            ) from error
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if device != "cpu" else 0
        most = _cores_of_one(ray.nodes(), need_gpu=bool(gpus))
        self.slots, self.threads = _share(tasks, workers, int(resources.get("CPU", 1)), gpus, most)
        self._perform = ray.remote(
            num_cpus=self.threads, num_gpus=1 if gpus else 0, max_retries=0, max_calls=_TASKS_A_WORKER
        )(perform)
        self._keys: dict[Any, str] = {}

    def start(self, task: Task) -> None:
        self._keys[self._perform.remote(task.call, dict(task.arguments))] = task.key

    def wait(self, seconds: float) -> list[Outcome]:
        if not self._keys:
            time.sleep(seconds)
            return []
        ended, _ = self._ray.wait(list(self._keys), num_returns=1, timeout=seconds)
        found = []
        for reference in ended:
            key = self._keys.pop(reference)
            try:
                found.append(Outcome(key, *self._ray.get(reference)))
            except self._ray.exceptions.RayError as error:
                found.append(Outcome(key, "died", f"Ray could not finish it ({type(error).__name__})"))
        return found

    def close(self) -> None:
        for reference in self._keys:
            self._ray.cancel(reference, force=True)
        if self._ours:
            self._ray.shutdown()
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, self._on_sigterm)
