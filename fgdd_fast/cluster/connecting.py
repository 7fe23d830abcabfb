"""Connect to a Ray cluster, and have it make workers."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from fgdd_engines.backends import find_backend
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.optional_imports import import_optional
from fgdd_fast.cluster.cluster import Cluster
from fgdd_fast.cluster.worker import Worker, versions
from fgdd_fast.errors import EngineError, SettingsError
from fgdd_fast.runtime.choose import RuntimeOptions, choose_runtime

_log = logging.getLogger(__name__)

# Ray reports what it is used for by default, and prints what its processes say to standard output.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
_AUTHENTICATION = "RAY_AUTH_MODE"  # set by Ray where it starts a cluster of its own
_PATIENCE = 10.0  # seconds for a cluster to answer
_AT_ONCE = 3  # calls in one worker: two that measure, and one that only reads


def ray_address(executor: str) -> str | None:
    """Return the address of the cluster that an executor names; None for one of this machine.

    Raises:
        SettingsError: there is no such executor.
    """
    name, colon, address = executor.partition(":")
    if name != "ray" or (colon and not address):
        raise SettingsError(f"There is no executor {executor!r}", "Use ray or ray:ADDRESS, or none.")
    return address or None


@contextmanager
def workers_for(
    options: RuntimeOptions, models: Iterable[object], *, here: bool = False
) -> Iterator[tuple[Cluster | None, RuntimeOptions]]:
    """Have a cluster make the workers that options ask for; without an executor there is none.

    A worker has `threads` processors, or all of the smallest machine if that has fewer; and a GPU where a
    model runs on one.

    Args:
        options: how models run; its executor names the cluster.
        models: those that are to run; what is no bundle runs on processors.
        here: whether no cluster is wanted, whatever the options say.

    Yields:
        The cluster, whose workers end with the block, and how models run on it.

    Raises:
        SettingsError: there is no such executor, or one GPU is named.
        MissingExtraError: Ray is not installed.
        EngineError: the cluster cannot be reached, or has no room for a worker.
    """
    if options.executor is None or here:
        yield None, options
        return
    address = ray_address(options.executor)
    gpu = any(_runs_on_gpu(model, options) for model in models if isinstance(model, Bundle))
    if gpu and ":" in options.device:
        raise SettingsError(
            f"The device {options.device} is one GPU of one machine, and each worker has another",
            f"Use --device {options.device.partition(':')[0]}.",
        )
    with _connected(address) as ray:
        threads, count = _room(ray.nodes(), options.threads, gpu=gpu)
        made = ray.remote(Worker).options(
            num_cpus=threads, num_gpus=int(gpu), max_restarts=-1, max_concurrency=_AT_ONCE
        )
        workers = [made.remote(str(Path.cwd()), versions()) for _ in range(count)]
        _log.info("On a Ray cluster: workers %d, threads of each %d", count, threads)
        try:
            yield Cluster(ray, workers, threads), replace(options, threads=threads)
        finally:
            for worker in workers:
                with suppress(Exception):  # the cluster may be gone
                    ray.kill(worker)


def _runs_on_gpu(bundle: Bundle, options: RuntimeOptions) -> bool:
    chosen = choose_runtime(bundle, options.device, options.precision, options.threads, options.batch)
    return not find_backend(chosen.runtime.device).on_processor


def _room(nodes: Iterable[Mapping[str, Any]], threads: int, *, gpu: bool) -> tuple[int, int]:
    """How many threads each worker has, and how many workers there are room for."""
    machines = []
    for node in nodes:
        has = node["Resources"] if node["Alive"] else {}
        processors, gpus = int(has.get("CPU", 0)), int(has.get("GPU", 0))
        if processors and (gpus or not gpu):
            machines.append((processors, min(gpus, processors) if gpu else 1))
    if not machines:
        what = "GPU" if gpu else "processor"
        raise EngineError(f"The Ray cluster has no {what} for a worker", "See: ray status")
    threads = min(threads, *(processors // workers for processors, workers in machines))
    return threads, sum(most if gpu else processors // threads for processors, most in machines)


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, connected; where it already was, it stays so."""
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    main = threading.current_thread() is threading.main_thread()
    before, mode = signal.getsignal(signal.SIGTERM), os.environ.get(_AUTHENTICATION)
    try:
        if found := re.fullmatch(r"(?:ray://)?(\S+):(\d+)", address or ""):
            # Where nobody listens, Ray itself finds that out after many minutes.
            socket.create_connection((found[1], int(found[2])), timeout=_PATIENCE).close()
        with _environment(_QUIET):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # those of Ray have no class in common
        reason = " ".join(str(error).split()).rstrip(".")
        named = "A Ray cluster" if address is None else f"The Ray cluster {address}"
        raise EngineError(
            f"{named} cannot be reached: {reason}",
            "Start one with 'ray start --head', and on other machines 'ray start --address ADDRESS'; if it "
            "asks for a token, set RAY_AUTH_MODE=token.",
        ) from error
    finally:
        if main and before is not None:
            signal.signal(signal.SIGTERM, before)
    try:
        yield ray
    finally:
        ray.shutdown()
        if mode is None:
            os.environ.pop(_AUTHENTICATION, None)


def _import_ray() -> ModuleType:
    with _environment(_QUIET):  # Ray reads them while it is imported
        return import_optional("ray", "ray")


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have variables set within a block, unless they were set before."""
    new = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)
