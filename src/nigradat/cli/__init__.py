"""The command line. One module a verb; nothing here but argument reading, calls and printing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nigradat.errors import NigradatError

DONE, REFUSED, INTERRUPTED = 0, 2, 130
_NO_MEMORY: Final = ("can't allocate memory", "out of memory")  # torch says it in a RuntimeError


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``nigradat``.

    Args:
        arguments: without the program's name; default those of the process.

    Returns:
        The exit code: 0 done; 2 something that the user can mend, said on standard error as what was found, what was
        expected and what to do; 130 interrupted. A fault of the program itself is raised, with its traceback.

    Example:
        >>> main(["--version"])
        nigradat 0.1.0
        0
    """
    import typer

    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        from nigradat.cli.app import app

        code = app(given or ["--help"], prog_name="nigradat", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as fault:
        error = as_user_error(fault)
        if error is None:
            raise
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    if code == INTERRUPTED:
        print(
            "interrupted; nothing half-written was left, and a training run goes on with the same command",
            file=sys.stderr,
        )
    return code if isinstance(code, int) else DONE


def as_user_error(fault: Exception) -> NigradatError | None:
    """What the user can act upon (our errors, a wrong command line, no memory, no room); None for a program fault."""
    from nigradat.errors import NO_ROOM, ConfigError, NigradatError, OutputError

    if isinstance(fault, NigradatError):
        return fault
    if hasattr(fault, "format_message"):  # Click's; Typer carries Click along or depends on it, by version
        context = getattr(fault, "ctx", None)
        command = context.command_path if context is not None else "nigradat"
        return ConfigError(fault.format_message(), todo=f"See '{command} --help'")
    says_no_memory = isinstance(fault, RuntimeError) and any(words in str(fault).lower() for words in _NO_MEMORY)
    if isinstance(fault, MemoryError) or says_no_memory:
        return NigradatError(
            "the memory did not suffice",
            todo="Close other programs, or take a smaller --batch-size or narrower --widths",
        )
    if isinstance(fault, OSError) and fault.errno in NO_ROOM:
        where = f" at {fault.filename}" if fault.filename else ""
        return OutputError(
            f"the disk did not take the result{where} ({fault.strerror})",
            "enough room for the whole result",
            "Free some space or choose another disk",
        )
    return None
