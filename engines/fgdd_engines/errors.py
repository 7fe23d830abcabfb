"""The base of every error that this project raises on purpose, and those of bundles and runtimes.

FgddError                    what was wrong and where, with advice on what to do
├── SettingsError            an option, or a combination of options, that cannot work
├── MissingExtraError        a package of an optional extra is not installed
├── PluginError              what another package offers cannot be used
├── BundleError              a model bundle: missing, damaged, or of the wrong role
└── EngineError              a runtime could not load or run a model

`fgdd_fast.errors` names these again and adds those of the pipeline.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

# What the runtimes put before and between the reasons: where in their own source they gave up.
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Exception from \S+:\d+:|Check '.*' failed at \S+:\d+:"
    r"|FrontEnd API failed with \w+:|/\S+\.(?:cc|cpp|h):\d+ (?:[\w:&*<>]+ )*[\w:]+\([^)]*\)(?: const)?"
)


class FgddError(Exception):
    """An error that a user can act on.

    Args:
        problem: what was wrong and where, as one sentence without a final full stop.
        advice: what to do about it, as one sentence or command; may be empty.
    """

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(problem, advice)
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.problem}. {self.advice}" if self.advice else self.problem


class SettingsError(FgddError):
    """An option, or a combination of options, that cannot work.

    What to do: change it; the command's --help has what can be chosen.
    """


class MissingExtraError(FgddError):
    """A package of an optional extra is not installed.

    What to do: install the extra that brings it; the message names it.

    Args:
        package: the import name that was not found.
        extra: the extra of fgdd-fast that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"The Python package '{package}' is not installed", f"Run: pip install 'fgdd-fast[{extra}]'"
        )
        self.args = package, extra  # of which it is made again in another process
        self.package = package
        self.extra = extra


class PluginError(FgddError):
    """A plug-in of another package cannot be used.

    What to do: update or remove the package that the message names; everything else works without it.
    """


class BundleError(FgddError):
    """A model bundle is missing, damaged, or of the wrong role.

    What to do: pull, fit, export or copy it again, all its files together; `fgdd-fast models verify`
    looks at those of the catalogue.
    """


class EngineError(FgddError):
    """A runtime could not load or run a model.

    What to do: `fgdd-fast doctor` says what runs on this machine, and how to install what does not;
    `--device cpu` runs everywhere.
    """


@contextmanager
def wrapped_as_engine_error(problem: str) -> Iterator[None]:
    """Raise whatever a runtime raises as an EngineError: `problem`, then the runtime's reason in one line.

    Runtimes raise plain Exception subclasses of their own making, and MemoryError, so all are caught.
    """
    try:
        yield
    except FgddError:
        raise
    except MemoryError as error:
        raise _out_of_memory(problem) from error
    except Exception as error:
        reason = " ".join(_NOISE.sub(" ", str(error)).split()).rstrip(".")
        if "bad_alloc" in reason or "Failed to allocate memory" in reason:
            raise _out_of_memory(problem) from error
        raise EngineError(f"{problem}: {reason or type(error).__name__}") from error


def _out_of_memory(problem: str) -> EngineError:
    return EngineError(f"{problem}: out of memory", "Use a smaller batch or fewer threads.")
