"""Packages that only some tasks need, imported when such a task runs, and the runtimes without telemetry.

ONNX Runtime and OpenVINO report to their makers' analytics services by default and leave an identifier in the
home folder: recent wheels of ONNX Runtime on their own, OpenVINO through its conversion tools, which
`import openvino` imports.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from types import ModuleType
from typing import Any

from fgdd_engines.errors import MissingExtraError

_TELEMETRY = "openvino_telemetry"
_SWITCH = "ORT_DISABLE_TELEMETRY"


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


def import_onnxruntime(extra: str = "cpu") -> ModuleType:
    """Import ONNX Runtime; its own switch, which it reads while it is imported, turns its telemetry off.

    Args:
        extra: the extra of fgdd-fast to name where it is not installed.

    Raises:
        MissingExtraError: the package is not installed.
    """
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "1"
    try:
        return import_optional("onnxruntime", extra)
    finally:
        if before is None:
            os.environ.pop(_SWITCH, None)
        else:
            os.environ[_SWITCH] = before


def disable_onnxruntime_telemetry() -> None:
    """Import ONNX Runtime without its telemetry, if it is installed, before another package imports it."""
    with suppress(MissingExtraError):
        import_onnxruntime()


def import_openvino() -> ModuleType:
    """Import OpenVINO; its tools go on in silence where they do not find the package `openvino_telemetry`."""
    if "openvino" in sys.modules:
        return import_optional("openvino", "cpu")
    before = {name: module for name, module in sys.modules.items() if name == _TELEMETRY}
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # the import system's way to say: not there
    try:
        return import_optional("openvino", "cpu")
    finally:
        sys.modules.pop(_TELEMETRY, None)
        sys.modules.update(before)


def openvino_core() -> Any:
    """OpenVINO's `Core`: the same one for the whole process, never freed.

    A `Core` registers an alternate signal stack at its first use and, at its end, what stood there before.
    When two end in the order in which they began, a freed stack stays registered, and the next signal (an
    interrupt, the end of a child process) is handled on whatever lies there by then.
    """
    return _only(import_openvino().Core)


@cache
def _only(core: Callable[[], Any]) -> Any:
    return core()
