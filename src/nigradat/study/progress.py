"""Where a study stands, read from the logs of its runs: epochs made, epochs to come, time left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nigradat.study.folder import FAILED_NAME, FIT_NAME, TIMES_NAME, FitName, StudyFolder

_LOG = "log.csv"


@dataclass(frozen=True)
class Tally:
    """Where a study stands.

    Attributes:
        done, failed, total: fits; those that failed are not among those done.
        share: of all planned epochs, those made or saved by stopping early; 0 to 1.
        seconds_left: at the pace of each method's epochs so far; None while no epoch was timed.
        running: what is being worked on.
    """

    done: int
    failed: int
    total: int
    share: float
    seconds_left: float | None
    running: tuple[str, ...]

    def __str__(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        left = "" if self.seconds_left is None else f", {duration(self.seconds_left)} left"
        now = f"; now {', '.join(self.running)}" if self.running else ""
        return f"{self.done} of {self.total} fits{failed}, {100 * self.share:.0f} % of the epochs{left}{now}"


def duration(seconds: float) -> str:
    """``45 s``, ``12 min`` or ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class Watch:
    """Looks at the fits of a study; each finished one is read once, the running ones whenever it is asked."""

    def __init__(self, folder: StudyFolder, fits: Sequence[FitName], epochs: int) -> None:
        self.folder, self.epochs = folder, epochs
        self._open = {fit.key: fit.method for fit in fits}
        self._total, self._done, self._failed = len(fits), 0, 0
        self._pace: dict[str, tuple[float, int]] = {}  # of finished fits, by method: seconds, epochs
        for key in list(self._open):
            self.ended(key)

    def ended(self, key: str) -> None:
        """Note that a task has ended; nothing happens where it is no fit, or has not."""
        if key not in self._open:
            return
        run = self.folder.fit(key)
        done, failed = (run / FIT_NAME).is_file(), (run / FAILED_NAME).is_file()
        if done or failed:
            method = self._open.pop(key)
            self._pace[method] = _add(self._pace.get(method), _times(run))
            self._done += done
            self._failed += failed and not done

    def look(self, running: Sequence[str], slots: int) -> Tally:
        """The tally now.

        Args:
            running: keys that are being worked on.
            slots: fits that can run at a time.
        """
        made: dict[str, int] = {}
        pace = dict(self._pace)
        for key in running:
            if key in self._open:
                run = self.folder.fit(key)
                made[key] = min(_lines(run / _LOG), self.epochs)
                pace[self._open[key]] = _add(pace.get(self._open[key]), _times(run))
        known = {method: seconds / count for method, (seconds, count) in pace.items() if count}
        usual = sum(known.values()) / len(known) if known else None
        left = {key: self.epochs - made.get(key, 0) for key in self._open}
        seconds = None
        if usual is not None:
            busy = max(1, min(slots, len(left)))
            seconds = sum(known.get(self._open[key], usual) * count for key, count in left.items()) / busy
        share = 1 - sum(left.values()) / (self._total * self.epochs)
        return Tally(self._done, self._failed, self._total, share, seconds, tuple(running))


def _add(one: tuple[float, int] | None, other: tuple[float, int]) -> tuple[float, int]:
    return other if one is None else (one[0] + other[0], one[1] + other[1])


def epoch_seconds(run: Path) -> list[float]:
    """How long each epoch of a run took, as far as its process timed it; see :func:`nigradat.study.tasks.fit`."""
    try:
        lines = (run / TIMES_NAME).read_text(encoding="utf-8").splitlines()[1:]
    except OSError:
        return []
    return [float(line.split(",")[1]) for line in lines]


def _times(run: Path) -> tuple[float, int]:
    seconds = epoch_seconds(run)
    return sum(seconds), len(seconds)


def _lines(log: Path) -> int:
    try:
        return max(0, log.read_bytes().count(b"\n") - 1)
    except OSError:
        return 0
