"""Optional packages, imported when they are needed; what to install if one is missing."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

_PACKAGES = {"matplotlib": "matplotlib", "pandas": "pandas", "numpy": "numpy", "IPython": "ipython"}


class MissingPackageError(ImportError):
    """An optional package is not installed. The message has the command that installs it."""


def require(module: str, purpose: str) -> Any:
    """Imports a module of an optional package.

    Args:
        module: the module, such as ``"matplotlib.pyplot"``.
        purpose: what needs it, to begin the message with.

    Raises:
        MissingPackageError: the package is not installed.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ImportError as error:
        missing = error.name if error.name and error.name.partition(".")[0] != package else package
        name = _PACKAGES.get(missing, missing)
        raise MissingPackageError(
            f"{purpose} needs the package {name}, which is not installed here. Install it with: pip install {name} "
            '(or everything that the chapters use: pip install "d2lkernels[book]")',
            name=missing,
        ) from None


def available(module: str) -> bool:
    """Whether an optional module can be imported."""
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel, which shows pictures between the cells. A terminal's IPython does not."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None
