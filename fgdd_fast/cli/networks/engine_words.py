"""How `fgdd-fast engine` shows engines, their builds, and how they compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from fgdd_engines.tensorrt_backend.plans.sidecar import Plan
from fgdd_engines.tensorrt_backend.plans.store import megabytes

WHOLE = ("precision", "batch", "size", "state")  # columns whose words are not broken


def engine_table(plans: Sequence[Plan], reasons: Mapping[Path, str]) -> Table:
    """Engines, and whether they can be used here; `reasons` are those against it, by the plan's file."""
    table = Table(padding=0, pad_edge=False)  # which many terminals are just wide enough for
    for heading in ("model", "precision", "device", "TensorRT", "batch", "size", "state", "usable"):
        table.add_column(heading, no_wrap=heading in WHOLE, overflow="fold")
    for plan in plans:
        key = plan.key
        table.add_row(
            escape(key.model),
            key.precision,
            escape(key.device),
            f"{key.flavour} {key.version}",
            str(key.profile),
            megabytes(plan.bytes),
            plan.state,
            "no" if plan.path in reasons else "yes",
        )
    return table


def plan_table(plans: Sequence[Plan]) -> Table:
    """Return what was built of a bundle."""
    table = Table("model", "precision", "batch", "layers", "size", "build", "state")
    for plan in plans:
        table.add_row(
            escape(plan.key.model),
            plan.key.precision,
            str(plan.key.profile),
            _counts(plan.precisions),
            megabytes(plan.bytes),
            f"{plan.seconds:.1f} s",
            plan.state,
        )
    return table


def sidecar_lines(plan: Plan, why_not: str, *, layers: bool) -> list[str]:
    """Return a plan's sidecar in words; `why_not` is why it cannot be used here."""
    key = plan.key
    kinds: dict[str, Counter[str]] = {}
    for layer in plan.layers:
        kinds.setdefault(layer.kind, Counter())[layer.precision] += 1
    workspace = "all memory" if plan.workspace_mib is None else f"{plan.workspace_mib} MiB"
    sizes = "".join(f", {axis} {length}" for axis, length in key.axes.items())
    lines = [
        str(plan.path),
        f"  model        {key.model}, {key.precision}: {plan.graph}",
        f"  model hash   {key.model_sha256}",
        f"  built for    {key.platform}",
        f"  takes        batch {key.profile}{sizes}",
        f"  plan         {megabytes(plan.bytes)}, SHA-256 {plan.sha256}",
        f"  built        {plan.built} in {plan.seconds:.1f} s, workspace {workspace}",
        f"  layers       {_counts(plan.precisions)} (read from the {plan.read_from})",
        *(f"    {kind:22} {_counts(counts)}" for kind, counts in sorted(kinds.items())),
        f"  state        {plan.state}",
    ]
    lines += [
        f"    {name.replace('_', ' '):22} {value:.3g}"
        for name, value in plan.parity.get("figures", {}).items()
    ]
    lines += [f"    falls short: {shortfall}" for shortfall in plan.parity.get("shortfalls", [])]
    lines.append(f"  usable here  {f'no: {why_not}' if why_not else 'yes'}")
    if layers:
        lines += [f"  {layer.precision:8} {layer.kind:24} {layer.name}" for layer in plan.layers]
    return lines


def _counts(precisions: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {precision}" for precision, count in precisions.items())
