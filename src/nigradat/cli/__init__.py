"""The command line. One module a verb; nothing here but argument reading, calls and printing."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of ``nigradat``. Errors that a user can act upon end with exit code 2 and no traceback."""
    from nigradat.cli.app import app
    from nigradat.errors import NigradatError

    try:
        app()
    except NigradatError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "interrupted; nothing half-written was left, and a training run can be started again to go on",
            file=sys.stderr,
        )
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
