"""A built plan with all that is known of it, which its JSON sidecar holds.

`NAME-PRECISION-DIGEST.plan` is a plain TensorRT plan, and `NAME-PRECISION-DIGEST.json` is its sidecar. A plan
is code that runs on the GPU, so only one whose hash a sidecar of this machine knows is loaded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from fgdd_engines.bundle.files import file_sha256
from fgdd_engines.errors import EngineError, FgddError
from fgdd_engines.tensorrt_backend.build import BuiltLayer
from fgdd_engines.tensorrt_backend.plans.key import PlanKey

FORMAT = 1
SUFFIX = ".plan"
# `unchecked`: not compared with the fp32 graph yet; `below bar`: kept out of use; `accepted`: below the bar,
# and used because its user said so.
State = Literal["unchecked", "passed", "below bar", "accepted"]
STATES: tuple[State, ...] = get_args(State)
USABLE: tuple[State, ...] = ("passed", "accepted")
ReadFrom = Literal["engine inspector", "network"]


@dataclass(frozen=True)
class Plan:
    """A built plan.

    Attributes:
        path: the plan's file.
        key: everything on which it depends; its digest is part of the file's name.
        sha256, bytes: hash and size of the file.
        graph: the ONNX file of which it was built.
        bundle: the ONNX file of the bundle that it belongs to: of the fp32 graph, where `graph` is a variant,
            and of the whole model, where it is a part.
        layers: the layers in their order, with their precisions.
        read_from: where these were read.
        seconds: time that the build took.
        workspace_mib: the limit under which it was built; None for none.
        built: when, in UTC, as ISO 8601 says it.
        parity: how its decisions compare with those of the fp32 graph on the CPU; empty while unchecked.
        state: what follows from that.
    """

    path: Path
    key: PlanKey
    sha256: str
    bytes: int
    graph: Path
    bundle: Path
    layers: tuple[BuiltLayer, ...]
    read_from: ReadFrom
    seconds: float
    workspace_mib: int | None
    built: str
    parity: Mapping[str, Any] = field(default_factory=dict)
    state: State = "unchecked"

    @property
    def sidecar(self) -> Path:
        """Path of the JSON sidecar."""
        return sidecar_of(self.path)

    @property
    def kernels(self) -> Path:
        """Path of the kernels that TensorRT for RTX compiled of it, which may not be there."""
        return kernels_of(self.path)

    @property
    def precisions(self) -> Mapping[str, int]:
        """How many layers there are of each precision, the most frequent first."""
        return dict(Counter(layer.precision for layer in self.layers).most_common())


def sidecar_of(path: Path) -> Path:
    """Path of the sidecar of a plan's file."""
    return path.with_suffix(".json")


def kernels_of(path: Path) -> Path:
    """Path of the compiled kernels of a plan's file."""
    return path.with_suffix(".kernels")


def sidecar_text(plan: Plan) -> bytes:
    """Return what a plan's sidecar holds."""
    data = asdict(plan)
    del data["path"]
    data |= {"key": plan.key.as_json(), "graph": str(plan.graph), "bundle": str(plan.bundle)}
    return (json.dumps({"format": FORMAT, **data}, indent=1, ensure_ascii=True) + "\n").encode()


def read_plan(path: Path) -> Plan:
    """Read the sidecar of a plan's file, and check that both belong together by their names and sizes.

    Raises EngineError where either is missing, renamed, cut short, garbled or of another format.
    """
    plan = _read_sidecar(path)
    if plan.key.stem != path.stem:
        raise _damaged(path, f"its sidecar describes another engine, {plan.key.stem}")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _damaged(path, f"the plan itself cannot be read: {error.strerror}") from error
    if size < plan.bytes:
        raise _damaged(path, f"it is truncated: {size} bytes of {plan.bytes} are there")
    if size > plan.bytes:
        raise _damaged(path, f"it has {size} bytes, but {plan.bytes} were written")
    return plan


def check_content(plan: Plan) -> None:
    """Raise EngineError where a plan's file is not what its sidecar's hash says, or cannot be read."""
    try:
        found = file_sha256(plan.path)
    except OSError as error:
        raise _damaged(plan.path, f"the plan itself cannot be read: {error.strerror}") from error
    check_hash(plan, found)


def check_hash(plan: Plan, found: str) -> None:
    """Raise EngineError unless the hash of a plan's content is the one in its sidecar."""
    if found != plan.sha256:
        raise _damaged(
            plan.path, f"it has changed since it was built: its SHA-256 is {found}, not {plan.sha256}"
        )


def _read_sidecar(path: Path) -> Plan:
    sidecar = sidecar_of(path)
    try:
        data = json.loads(sidecar.read_bytes())
    except FileNotFoundError as error:
        missing = f"its sidecar {sidecar.name} is missing, so nothing is known of this plan"
        raise _damaged(path, missing) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, f"its sidecar cannot be read: {error}") from error
    try:
        if (found := data["format"]) != FORMAT:
            raise _damaged(path, f"its sidecar has format {found}, and this version reads format {FORMAT}")
        return _parse(path, data)
    except EngineError:
        raise
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError, FgddError) as error:
        raise _damaged(path, f"its sidecar lacks or garbles a field: {error!r}") from error


def _parse(path: Path, data: Mapping[str, Any]) -> Plan:
    if data["state"] not in STATES or data["read_from"] not in get_args(ReadFrom):
        raise ValueError(f"{data['state']!r}, {data['read_from']!r}")
    return Plan(
        path=path,
        key=PlanKey.from_json(data["key"]),
        sha256=str(data["sha256"]),
        bytes=int(data["bytes"]),
        graph=Path(data["graph"]),
        bundle=Path(data["bundle"]),
        layers=tuple(
            BuiltLayer(str(row["name"]), str(row["kind"]), str(row["precision"])) for row in data["layers"]
        ),
        read_from=data["read_from"],
        seconds=float(data["seconds"]),
        workspace_mib=None if data["workspace_mib"] is None else int(data["workspace_mib"]),
        built=str(data["built"]),
        parity=_parity(data["parity"]),
        state=data["state"],
    )


def _parity(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """How decisions compare; nothing of it where that was not measured."""
    if not data:
        return {}
    figures = {str(name): float(value) for name, value in data["figures"].items()}
    return {**data, "figures": figures, "shortfalls": [str(line) for line in data["shortfalls"]]}


def _damaged(path: Path, reason: str) -> EngineError:
    return EngineError(
        f"The engine {path} cannot be used: {reason}", "Build it again: fgdd-fast engine build BUNDLE"
    )
