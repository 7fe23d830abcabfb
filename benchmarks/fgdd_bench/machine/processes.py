"""How the references start their worker processes, and an environment that is left as it was."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

_PRELOADED = ["fgdd_bench.references.fair_workers", "fgdd_bench.references.mosaics"]


def worker_context() -> ForkServerContext:
    """Processes that are forked from a server which has imported what they need, and runs no threads.

    A fork of the benchmark itself could inherit locks that threads of a runtime hold at that moment.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    _start_server()
    return context


def _start_server() -> None:
    """Start the server, unless it runs, without an ear for Ctrl-C, which a terminal sends to every process.

    Its processes inherit that: they end when the benchmark ends them, and write no traceback of their own.
    """
    if threading.current_thread() is not threading.main_thread():
        _start_safely()  # only the main thread may change what a signal does
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _start_safely()
    finally:
        signal.signal(signal.SIGINT, before)


def _start_safely() -> None:
    """Start the server so that it imports nothing of the current folder (from Python 3.11 on)."""
    with variable("PYTHONSAFEPATH", "1"):
        forkserver.ensure_running()


@contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """Within the block an environment variable has another value; then it is as it was before."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
