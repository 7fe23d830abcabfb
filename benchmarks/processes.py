"""How the references start their worker processes."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

_PRELOADED = ["fgdd_fast.benchmarks.fair_workers", "fgdd_fast.benchmarks.reference_mosaics"]


def worker_context() -> ForkServerContext:
    """Processes that are forked from a server which has imported what they need, and runs no threads.

    A fork of the benchmark itself could inherit locks that threads of a runtime hold at that moment.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context
