"""``python -m fastnn`` is the command ``fastnn``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
