"""Which graph stands for a bundle's own on some device, in some precision."""

from __future__ import annotations

from collections.abc import Mapping

from fgdd_engines.backends import find_backend
from fgdd_engines.base import Device, Precision
from fgdd_engines.bundle.bundle import Bundle, Variant
from fgdd_fast.errors import SettingsError

TEXT = "text"  # the part that encodes prompts: once a class, so it stays in fp32


def variant_name(device: Device, precision: Precision) -> Variant | None:
    """Return the variant that a device takes for a precision; None where the fp32 graph serves.

    Raises:
        SettingsError: there is no such device, or it does not compute in this precision.
    """
    variants = find_backend(device).variants
    if precision not in ("auto", *variants):
        raise SettingsError(
            f"The device {device} does not compute in {precision}",
            f"Use the precision {' or '.join(variants)}"
            + (", or the device openvino." if device == "cpu" and precision != "tf32" else "."),
        )
    return variants.get(precision)


def find_variants(bundle: Bundle, variant: Variant | None) -> Mapping[str, Bundle]:
    """Return the variants of a bundle's graphs, by the SHA-256 of the graph that each stands for.

    A part without a variant stays as it is; the bundle's own graph must have one.

    Raises:
        SettingsError: it has none.
        BundleError: a variant is damaged, or belongs to another graph.
    """
    if variant is None:
        return {}
    parts = [bundle.part(name) for name in bundle.parts if name != TEXT]
    found = {graph.sha256: graph.find_variant(variant) for graph in (bundle, *parts)}
    if found[bundle.sha256] is None:
        raise SettingsError(
            f"The bundle {bundle.onnx} has no {variant} variant beside it",
            f"Make one: {conversion(bundle, variant)}",
        )
    return {sha256: graph for sha256, graph in found.items() if graph is not None}


def conversion(bundle: Bundle, variant: Variant) -> str:
    """Return the command that makes a variant."""
    if variant.startswith("int8"):
        return f"fgdd-fast convert {bundle.onnx} --precision int8 --calibrate DATA"
    return f"fgdd-fast convert {bundle.onnx} --precision {variant}"
