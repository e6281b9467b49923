"""``python -m nigradat``."""

import sys

from nigradat.cli import main

sys.exit(main())
