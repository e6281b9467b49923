"""Tasks that take no time, called by name in worker processes; and a script that runs one that takes long.

Usage of the script: ``fake_tasks.py FOLDER``. It starts a worker on :func:`sleep` and waits for it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from nigradat.errors import OutputError
from nigradat.study.engines import Task, make_engine, run_tasks


def note(log: str, key: str) -> None:
    """One line in a common file; a write this short is whole."""
    with open(log, "ab", buffering=0) as file:
        file.write(f"{key}\n".encode())


def chatter(log: str, key: str) -> None:
    print("a library prints this")
    os.write(1, b"and C code this")
    note(log, key)


def die_once(log: str, key: str) -> None:
    died = Path(f"{log}.{key}.died")
    if not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    note(log, key)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def exit_with_words() -> None:
    print("no room on the moon", file=sys.stderr, flush=True)
    os._exit(3)


def refuse() -> None:
    raise OutputError("the disk is full")


def break_down() -> None:
    raise ZeroDivisionError("one over nothing")


def fail() -> tuple[str, str]:
    return "failed", "it diverged"


def busy_once(log: str, key: str) -> tuple[str, str] | None:
    asked = Path(f"{log}.{key}.asked")
    if not asked.exists():
        asked.touch()
        return "busy", ""
    note(log, key)
    return None


def sleep(pid_file: str) -> None:
    Path(pid_file).write_text(str(os.getpid()))
    time.sleep(600)


if __name__ == "__main__":
    with make_engine("processes", tasks=1, workers=1, device="cpu") as (engine, _):
        run_tasks([Task("long", "fake_tasks:sleep", {"pid_file": str(Path(sys.argv[1]) / "pid")})], engine)
