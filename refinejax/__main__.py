"""``python -m refinejax``: the same as the command ``refinejax``."""

import sys

from refinejax.cli.main import main

sys.exit(main())
