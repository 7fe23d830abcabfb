"""How the references start their worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
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
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
