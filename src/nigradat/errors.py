"""Named errors. Each says what was found, what was expected and what to do.

The command line prints the message and ends with exit code 2; no traceback is shown.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final

NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Of an :class:`OSError`: the disk takes no more."""


class NigradatError(Exception):
    """Base of every error that the user can act upon.

    Args:
        found: what is wrong, with the value and the place (a sentence without full stop).
        expected: what would have been right.
        todo: what to do next.
    """

    def __init__(self, found: str, expected: str = "", todo: str = "") -> None:
        self.found, self.expected, self.todo = found, expected, todo
        parts = (found, f"Expected {expected}" if expected else "", todo)
        super().__init__(" ".join(part if part.endswith("?") else part.rstrip(".") + "." for part in parts if part))

    def __reduce__(self) -> tuple[object, tuple[str, str, str]]:
        # so that an error crosses a process border (the renderer's workers) unchanged
        return (type(self), (self.found, self.expected, self.todo))


class ImageError(NigradatError):
    """A file that is no image, is truncated, or whose voxels cannot be used."""


class OrientationError(NigradatError):
    """An image without a usable orientation, or with two that disagree. A side is never guessed."""


class LateralityError(NigradatError):
    """Right and left contradict the image's own coordinates."""


class FieldOfViewError(NigradatError):
    """The patch around a centre is not inside the image."""


class CohortError(NigradatError):
    """A packed cohort, a split or labels that cannot be used."""


class ManifestError(NigradatError):
    """Every fault of a manifest, one a line."""

    def __init__(self, path: str, faults: Sequence[str]) -> None:
        self.path, self.faults = path, tuple(faults)
        shown = "\n".join(f"  {fault}" for fault in self.faults)
        n = len(self.faults)
        super().__init__(
            f"{path}: {n} fault{'s' if n != 1 else ''} found\n{shown}\nNothing was written",
            "",
            "Mend the lines above and run the command again",
        )

    def __reduce__(self) -> tuple[object, tuple[str, tuple[str, ...]]]:  # type: ignore[override]
        return (type(self), (self.path, self.faults))


class WeightsError(NigradatError):
    """Weights or a model card that are missing, truncated, foreign or altered."""


class ConfigError(NigradatError):
    """An option or a configuration key that does not exist or does not fit."""


class CalibrationError(NigradatError):
    """An interval that cannot be promised with the patients at hand."""


class OutputError(NigradatError):
    """An output folder that is in use, or a disk that does not take the result."""


class MissingExtraError(NigradatError):
    """An optional part that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(
            f"the package '{package}' is not installed",
            f"the optional part '{extra}'",
            f"Install it: pip install -c constraints.txt 'nigradat[{extra}]'",
        )

    def __reduce__(self) -> tuple[object, tuple[str, str]]:  # type: ignore[override]
        return (type(self), (self.package, self.extra))
