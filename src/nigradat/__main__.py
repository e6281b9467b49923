"""``python -m nigradat``."""

from nigradat.cli import main

main()
