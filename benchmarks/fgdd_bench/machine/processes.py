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

    A fork of the benchmark itself could inherit locks that threads of a runtime hold at that moment. The
    server, and so its processes, has no ear for Ctrl-C, which a terminal sends to every process: they end
    when the benchmark ends them, and write no traceback of their own.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    main = threading.current_thread() is threading.main_thread()  # which alone may change what a signal does
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        with variable(
            "PYTHONSAFEPATH", "1"
        ):  # it imports nothing of the current folder (from Python 3.11 on)
            forkserver.ensure_running()
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
    return context


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
