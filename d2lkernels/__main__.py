"""``python -m d2lkernels``."""

import sys

from .cli import main
from .config import keep_freed_memory

keep_freed_memory()
sys.exit(main())
