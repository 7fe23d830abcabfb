"""Errors of the runtimes, told as this package's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from fgdd_engines.errors import EngineError, FgddError

# What the runtimes put before and between the reasons: where in their own source they gave up.
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Exception from \S+:\d+:|Check '.*' failed at \S+:\d+:"
    r"|FrontEnd API failed with \w+:|/\S+\.(?:cc|cpp|h):\d+ (?:[\w:&*<>]+ )*[\w:]+\([^)]*\)(?: const)?"
)


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
