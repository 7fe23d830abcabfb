"""What a worker of a cluster does: it calls functions that were sent to it."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from threading import Lock
from typing import Any

import cv2
import numpy as np

import fgdd_fast
from fgdd_engines.errors import EngineError
from fgdd_fast.images.resize import resize_arithmetic


def versions() -> dict[str, str]:
    """Return all that results depend on beside models and runtimes, which are compared when they open."""
    return {
        "fgdd-fast": fgdd_fast.__version__,
        "OpenCV": cv2.__version__,
        "NumPy": np.__version__,
        "resizing by": resize_arithmetic("area"),
    }


class Worker:
    """A process of a cluster, made by Ray; it is made anew where it dies.

    Args:
        folder: the working folder of whoever sends work, to which paths are relative.
        expected: `versions` there.
    """

    def __init__(self, folder: str, expected: Mapping[str, str]) -> None:
        with suppress(OSError):
            os.chdir(folder)
        self._expected = expected
        self._functions: dict[str, Callable[[Any], Any]] = {}
        self._lock = Lock()

    def ready(self) -> None:
        """Return when it can be sent work.

        Raises:
            EngineError: it would find something else than whoever sends work.
        """
        for name, found in versions().items():
            if found != self._expected[name]:
                raise EngineError(
                    f"{name} is {found} on {socket.gethostname()}, and {self._expected[name]} here",
                    "Install the same versions of everything on all machines.",
                )

    def call(self, sent: Sequence[Any], item: Any) -> Any:
        """Call a function that was sent once, pickled, as the only one of `sent`."""
        with self._lock:
            key = sent[0].hex()
            if key not in self._functions:
                self._functions[key] = pickle.loads(import_module("ray").get(sent[0]))
        return self._functions[key](item)
