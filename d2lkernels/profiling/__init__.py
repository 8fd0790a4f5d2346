"""Where a model's time and memory go: :func:`profile`, and ``python -m d2lkernels profile``."""

from .profile import Profile, profile
from .recorder import Layer
from .roofline import Roofline

__all__ = ["Layer", "Profile", "Roofline", "profile"]
