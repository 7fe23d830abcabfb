"""Plug-ins: what other installed packages add to this project, found through Python's entry points.

A package offers a backend, a foreground family or a student architecture in its own metadata:

    [project.entry-points."fgdd_fast.backends"]
    counting = "my_package.counting:BACKEND"

Plug-ins are looked up where a name is resolved, never at import. One that cannot be loaded is named in an
error or a warning, and the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from fgdd_engines.errors import PluginError

BACKENDS = "fgdd_fast.backends"
FOREGROUNDS = "fgdd_fast.foregrounds"
STUDENTS = "fgdd_fast.students"

Thing = TypeVar("Thing")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plugin:
    """What an installed package offers under a name.

    Attributes:
        name: under which it is asked for.
        value: where it lies, as `module:attribute`.
        distribution: the package that offers it, as pip knows it.
        version: of that package.
    """

    name: str
    value: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"

    def load(self, kind: type[Thing]) -> Thing:
        """Import what it offers; PluginError where that fails, or it is not of this kind."""
        try:
            thing = EntryPoint(self.name, self.value, "").load()
        except Exception as error:  # whatever code of others raises
            reason = f"{type(error).__name__}: {error}"
        else:
            if isinstance(thing, kind):
                return thing
            reason = f"{self.value} is a {type(thing).__name__}, not a {kind.__name__}"
        raise PluginError(
            f"The plug-in '{self.name}' of {self} cannot be loaded: {reason}",
            f"Update it, or remove it: pip uninstall {self.distribution}",
        )


def find_plugins(group: str, reserved: Collection[str] = ()) -> dict[str, Plugin]:
    """Return the installed plug-ins of a group by their names; none of them is imported.

    Args:
        group: `BACKENDS`, `FOREGROUNDS` or `STUDENTS`.
        reserved: the names of what is built in. A plug-in of such a name is left out with a warning, and so
            is the second of two that have the same name.
    """
    found: dict[str, Plugin] = {}
    for point in entry_points(group=group):
        if point.dist is None:
            continue
        plugin = Plugin(point.name, point.value, point.dist.metadata["Name"], point.dist.version)
        if point.name in reserved:
            _warn(f"The plug-in '{point.name}' of {plugin} is left out: what is built in has this name")
        elif (first := found.setdefault(point.name, plugin)) != plugin:
            _warn(f"The plug-in '{point.name}' of {plugin} is left out: {first} offers the same name")
    return found


@cache
def _warn(text: str) -> None:
    """Say something once in this process."""
    _log.warning("%s", text)
