"""The plans that were built on this machine: built once, kept whole or not at all, refused when in doubt."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from fgdd_engines.bundle.files import stage_file
from fgdd_engines.errors import EngineError
from fgdd_engines.file_lock import clear_leftovers, exclusive_lock, find_leftovers
from fgdd_engines.paths import cache_folder
from fgdd_engines.tensorrt_backend.build import Built
from fgdd_engines.tensorrt_backend.plans.choice import Damaged, choose_plan
from fgdd_engines.tensorrt_backend.plans.key import PlanKey, Platform, file_name
from fgdd_engines.tensorrt_backend.plans.sidecar import (
    SUFFIX,
    Plan,
    State,
    check_content,
    check_hash,
    kernels_of,
    read_plan,
    sidecar_of,
    sidecar_text,
)

__all__ = ["Damaged", "Origin", "Plan", "PlanKey", "PlanStore", "Platform", "megabytes"]

_TIMING = ".timing"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """Where a plan comes from.

    Attributes:
        graph: the ONNX file of which it is built.
        bundle: the ONNX file of the fp32 bundle, whole, to which that belongs.
    """

    graph: Path
    bundle: Path


class PlanStore:
    """Built plans in one folder, with their sidecars and TensorRT's timing caches.

    Args:
        folder: where they lie; `engines` in the cache folder by default. It may not exist yet.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = cache_folder() / "engines" if folder is None else folder

    def path(self, key: PlanKey) -> Path:
        """Return where the plan of a key lies once it is built."""
        return self.folder / f"{key.stem}{SUFFIX}"

    def timing_cache(self, platform: Platform) -> Path:
        """Return where what TensorRT measured of its kernels on a platform lies, for the builds to come."""
        where = f"{platform.device} {platform.compute_capability}"
        digest = hashlib.sha256(where.encode()).hexdigest()[:16]
        return self.folder / f"{platform.flavour}-{file_name(platform.version)}-{digest}{_TIMING}"

    def build_once(
        self,
        key: PlanKey,
        build: Callable[[bytes], Built],
        origin: Origin,
        *,
        workspace_mib: int | None = None,
        rebuild: bool = False,
    ) -> Plan:
        """Give the plan of a key, which is built unless it is there, whole and unchanged.

        Where another process builds the same plan, this one waits and takes the result. Builds for one
        device follow each other, for TensorRT times its kernels there.

        Args:
            key: what the plan is to be.
            build: builds it, given the timing cache of earlier builds on this platform.
            origin: where it comes from, for the sidecar.
            workspace_mib: under which limit it is built, for the sidecar.
            rebuild: build it anew, unless another process has done so since this call.

        Raises:
            EngineError: the folder cannot be written, or is full; and whatever `build` raises.
        """
        asked = _now()
        path = self.path(key)
        same = partial(_log.info, "Another process builds %s: waiting", path.name)
        other = partial(_log.info, "Another engine is built for this device: waiting")
        with _wrapped(path), self._writing(path, same) as staging:
            plan = self._known(key)
            if plan is not None and (not rebuild or plan.built > asked):
                return plan
            timing = self.timing_cache(key.platform)
            with self._writing(timing, other) as timing_staging:
                built = build(timing.read_bytes() if timing.exists() else b"")
                plan = Plan(
                    path=path,
                    key=key,
                    sha256=hashlib.sha256(built.plan).hexdigest(),
                    bytes=len(built.plan),
                    graph=origin.graph.resolve(),
                    bundle=origin.bundle.resolve(),
                    layers=built.layers,
                    read_from=built.read_from,
                    seconds=built.seconds,
                    workspace_mib=workspace_mib,
                    built=_now(),
                )
                self._publish(staging, plan, built.plan)
                if built.timing_cache:
                    with suppress(OSError):  # the next build does without
                        stage_file(timing_staging / timing.name, built.timing_cache).replace(timing)
        return plan

    def load(self, wanted: PlanKey) -> tuple[Plan, bytes]:
        """Return the plan that stands for a key: of the same graph and platform, for these batches too.

        Args:
            wanted: the key, whose profile is the batches that are to be run.

        Returns:
            Of several, the one that is tuned for the nearest batch; and its content, which is what its
            sidecar knows.

        Raises:
            EngineError: there is none that may be used; the message says what there is, and what is wrong
                with it.
        """
        return choose_plan(wanted, self.list(), self.damaged(), self.plan_bytes)

    def find_exact(self, key: PlanKey) -> Plan | None:
        """Return the plan of a key, whatever its state; None where it was never built.

        Raises:
            EngineError: it is damaged.
        """
        path = self.path(key)
        if not path.exists():  # one of version 0.1 has its old name
            path = next((plan.path for plan in self.list() if plan.key.is_like(key)), path)
        if not (path.exists() or sidecar_of(path).exists()):
            return None
        plan = read_plan(path)
        check_content(plan)
        return plan

    def plan_bytes(self, plan: Plan) -> bytes:
        """Return a plan's content; EngineError where it has changed since it was built, or cannot be read."""
        try:
            content = plan.path.read_bytes()
        except OSError as error:
            raise EngineError(f"The engine {plan.path} cannot be read: {error.strerror}") from error
        check_hash(plan, hashlib.sha256(content).hexdigest())
        return content

    def record_parity(self, plan: Plan, parity: Mapping[str, Any], state: State) -> Plan:
        """Put into a plan's sidecar how it compares with the fp32 graph, and what follows from that.

        Raises:
            EngineError: the plan was removed or built anew meanwhile, or the sidecar cannot be written.
        """
        checked = replace(plan, parity=dict(parity), state=state)
        with _wrapped(plan.sidecar), self._writing(plan.path, lambda: None) as staging:
            if read_plan(plan.path).sha256 != plan.sha256:
                raise EngineError(f"The engine {plan.path} was built anew while this one was checked")
            stage_file(staging / plan.sidecar.name, sidecar_text(checked)).replace(plan.sidecar)
        return checked

    def list(self) -> tuple[Plan, ...]:
        """Return the plans whose sidecars are in order, by name; their content is not read."""
        return tuple(entry for entry in self._entries() if isinstance(entry, Plan))

    def damaged(self) -> tuple[Damaged, ...]:
        """Return the plans and sidecars that cannot be used, by name; content is not read."""
        return tuple(entry for entry in self._entries() if isinstance(entry, Damaged))

    def leftovers(self) -> tuple[str, ...]:
        """Return the names of what killed processes left unfinished."""
        return find_leftovers(self.folder)

    def timing_caches(self) -> tuple[Path, ...]:
        """Return the timing caches of all platforms."""
        return tuple(sorted(self.folder.glob(f"*{_TIMING}")))

    def remove(self, path: Path) -> int:
        """Remove a plan with its sidecar.

        Returns:
            The bytes that became free.

        Raises:
            EngineError: another process builds it, or the folder cannot be written.
        """

        def refuse() -> None:
            raise EngineError(f"The engine {path} is being built or checked by another process")

        with _wrapped(path), self._writing(path, refuse):
            return sum(_unlink(file) for file in (sidecar_of(path), path, kernels_of(path)))

    def clear(self, timing_caches: Sequence[Path]) -> int:
        """Remove what killed processes left, and timing caches, and return the bytes that became free."""
        freed = clear_leftovers(self.folder)
        return freed + sum(_unlink(file) for file in timing_caches)

    def _entries(self) -> Iterator[Plan | Damaged]:
        paths = [*self.folder.glob(f"*{SUFFIX}"), *self.folder.glob("*.json")]
        for path in sorted({path.with_suffix(SUFFIX) for path in paths}):
            try:
                yield read_plan(path)
            except EngineError as error:
                yield Damaged(path, error.problem)

    def _writing(self, path: Path, on_wait: Callable[[], None]) -> AbstractContextManager[Path]:
        self.folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(self.folder)
        return exclusive_lock(self.folder, path.stem, on_wait)

    def _known(self, key: PlanKey) -> Plan | None:
        """The plan of a key if it is whole and unchanged; None, and a word about it, otherwise."""
        try:
            return self.find_exact(key)
        except EngineError as error:
            _log.warning("%s: building it again", error.problem)
            return None

    def _publish(self, staging: Path, plan: Plan, content: bytes) -> None:
        """Put a plan and its sidecar in their places, the sidecar last."""
        text = sidecar_text(plan)
        try:
            staged = [stage_file(staging / plan.path.name, content), stage_file(staging / "sidecar", text)]
        except OSError as error:
            needed = megabytes(len(content) + len(text))
            raise EngineError(
                f"The engine {plan.path} cannot be written: {error.strerror or error}",
                f"It needs {needed} in {self.folder}, where {megabytes(shutil.disk_usage(self.folder).free)} "
                "are free: make room, or name another folder in FGDD_FAST_CACHE.",
            ) from error
        _unlink(plan.kernels)  # they are of the plan that was here
        for temporary, path in zip(staged, (plan.path, plan.sidecar), strict=True):
            temporary.replace(path)


def megabytes(count: int) -> str:
    """Return a number of bytes, as a disk's size is told."""
    return f"{count / 1e6:.1f} MB"


@contextmanager
def _wrapped(path: Path) -> Iterator[None]:
    """Turn the system's refusals into an EngineError."""
    try:
        yield
    except OSError as error:
        raise EngineError(
            f"The engine {path} cannot be written: {error.strerror or error}",
            "Make the folder writable, or name another one in FGDD_FAST_CACHE.",
        ) from error


def _unlink(file: Path) -> int:
    try:
        size = file.stat().st_size
        file.unlink()
    except FileNotFoundError:
        return 0
    return size


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
