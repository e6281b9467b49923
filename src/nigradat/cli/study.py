"""``nigradat study``."""

NAME = "study"


def run() -> None:
    """x."""
