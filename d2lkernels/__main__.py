"""``python -m d2lkernels``."""

import sys

from .cli import main

sys.exit(main())
