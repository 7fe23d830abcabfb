"""Packages that only some tasks need, imported when such a task runs."""

from __future__ import annotations

import importlib
from types import ModuleType

from fgdd_engines.errors import MissingExtraError


def import_optional(module: str, extra: str) -> ModuleType:
    """Import `module`, which the optional extra `extra` installs.

    Raises:
        MissingExtraError: the package is not installed; the message is the install line.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise  # the package is there, but something that it needs is not
        raise MissingExtraError(top, extra) from error
