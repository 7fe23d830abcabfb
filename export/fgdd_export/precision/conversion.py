"""Make variants of a bundle in lower precision, and let out only those that decide as the fp32 one does.

Half precision (fp16, bf16) is emulated in fp32 on the CPU, rounding what the variant will round, so no GPU
is needed to find out which nodes have to stay in fp32. int8 runs as it is, where it will run.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from fgdd_engines.bundle.bundle import Bundle, Variant, write_bundle
from fgdd_export.graphs.graph import read_model, serialise
from fgdd_export.graphs.late_onnx import onnx
from fgdd_export.precision.graph import LowPrecision
from fgdd_export.precision.mixed_precision import emulate, lower_precision
from fgdd_export.precision.quantisation import FORMS, Calibration, Form, calibrate, quantise_calibrated
from fgdd_export.precision.quantisation_nodes import weighted_nodes
from fgdd_export.precision.sensitive_nodes import find_sensitive
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.models.factory import asked_by_class
from fgdd_fast.models.network import Runtime
from fgdd_fast.runtime.parity import REFERENCE, Comparison
from fgdd_fast.runtime.sample_images import SampleImage, sample_feeds
from fgdd_fast.runtime.tolerances import ParityReport
from fgdd_fast.runtime.variants import TEXT

_log = logging.getLogger(__name__)

# Of what is accepted of any way to run a bundle, as much is aimed at here: a variant is for many more images
# than it is compared on.
MARGIN = 0.5


@dataclass(frozen=True)
class Converted:
    """A variant that was written.

    Attributes:
        bundle: the variant.
        parity: how its decisions compare with those of the fp32 graph.
        lowered: how many nodes compute in the lower precision.
        sensitive: nodes that stay in fp32 because of what they did to the decisions.
        kept: why all nodes that stay in fp32 do, by their names.
    """

    bundle: Bundle
    parity: ParityReport
    lowered: int
    sensitive: tuple[str, ...]
    kept: Mapping[str, str]


@dataclass(frozen=True)
class _Made:
    """A variant's graph, before it is written."""

    network: Bundle
    variant: Variant
    model: onnx.ModelProto
    lowered: Sequence[str]
    sensitive: tuple[str, ...]
    kept: Mapping[str, str]
    compared: str
    parity: ParityReport


def convert(
    bundle: Bundle,
    precision: Literal["fp16", "bf16", "int8"],
    images: Sequence[SampleImage],
    *,
    calibration: Sequence[SampleImage] = (),
    force: bool = False,
) -> tuple[Converted, ...]:
    """Write the variants of a bundle in a lower precision, and of a teacher's cropped-input graphs as well.

    Args:
        bundle: in fp32; a foreground model, a teacher or a backbone.
        precision: fp16 and bf16 are for GPUs; int8 is for processors and boards.
        images: on which decisions are compared.
        calibration: for int8: images like those that will be measured; they say how large each tensor
            becomes.
        force: whether variants are written although decisions differ too much.

    Raises:
        BundleError: decisions differ too much, whatever stays in fp32; or a graph cannot be converted.
        SettingsError: nothing is decided by what a bundle of this role gives, or it is not quantised.
    """
    converted: list[Converted] = []
    for each in (bundle, *bundle.cropped_graphs()):
        if precision == "int8":
            converted += convert_to_int8(each, images, calibration, force=force)
        else:
            converted += convert_to_half(each, precision, images, force=force)
    return tuple(converted)


def convert_to_half(
    bundle: Bundle, precision: LowPrecision, images: Sequence[SampleImage], *, force: bool = False
) -> tuple[Converted, ...]:
    """Write the fp16 or bf16 variants of a bundle's graphs; see `convert`.

    A text encoder stays, since it runs once a class.
    """
    comparison = _compare(bundle, images)
    emulated: dict[str, Bundle] = {}
    with tempfile.TemporaryDirectory() as folder:
        made = [
            _to_half(network, precision, comparison, emulated, Path(folder), force)
            for network in (bundle, *(bundle.part(name) for name in bundle.parts if name != TEXT))
        ]
    return _publish(bundle, [replace(each, parity=made[-1].parity) for each in made], force)


def _compare(bundle: Bundle, images: Sequence[SampleImage]) -> Comparison:
    if bundle.variant is not None:
        raise SettingsError(
            f"The bundle {bundle.onnx} is the {bundle.variant} variant of another", "Name the fp32 bundle."
        )
    _log.info("Running %s in fp32 on %d images", bundle.name, len(images))
    return Comparison(bundle, images)


def _to_half(
    network: Bundle,
    precision: LowPrecision,
    comparison: Comparison,
    emulated: dict[str, Bundle],
    folder: Path,
    force: bool,
) -> _Made:
    """Lower one more graph; decisions are compared with those that are `emulated` already beside it."""
    _log.info("Emulating %s in %s", network.onnx.name, precision)
    model = _read(network)

    def measure(keep: Collection[str]) -> ParityReport:
        emulated[network.sha256] = _stage(network, emulate(model, precision, keep), folder)
        return comparison.compare(replace(REFERENCE, variants=emulated), batch=1).parity

    lowered = lower_precision(model, precision)
    parity, sensitive = _without_sensitive(lowered.lowered, measure, force)
    if sensitive:
        lowered = lower_precision(model, precision, sensitive)
    compared = f"{precision}, rehearsed in fp32, with fp32"
    return _Made(
        network, precision, lowered.model, lowered.lowered, sensitive, lowered.kept, compared, parity
    )


def convert_to_int8(
    bundle: Bundle,
    images: Sequence[SampleImage],
    calibration: Sequence[SampleImage],
    *,
    forms: Sequence[Form] = FORMS,
    force: bool = False,
) -> tuple[Converted, ...]:
    """Write the int8 variants of a bundle's graph, each compared on the runtime that it is for.

    Not of a model that is asked for a class by its name; see `convert`.
    """
    if asked_by_class(bundle):
        raise SettingsError(
            f"{bundle.name} is asked for a class by its name, and such models are not quantised",
            "Convert it to fp16 or bf16.",
        )
    comparison = _compare(bundle, images)
    model = _read(bundle)
    _log.info("Calibrating on %d images", len(calibration))
    ranges = calibrate(model, sample_feeds(bundle, calibration), forms)
    with tempfile.TemporaryDirectory() as folder:
        made = [_to_int8(bundle, form, model, ranges, comparison, Path(folder), force) for form in forms]
    return _publish(bundle, made, force)


def _to_int8(
    bundle: Bundle,
    form: Form,
    model: onnx.ModelProto,
    ranges: Calibration,
    comparison: Comparison,
    folder: Path,
    force: bool,
) -> _Made:
    _log.info("Quantising %s as %s", bundle.onnx.name, form)
    quantised, runtime = quantise_calibrated(model, ranges, form), _runtime_of(form)
    in_int8 = set(quantised.quantised)
    # What lies between convolutions and products follows them.
    products = tuple(node.name for node in weighted_nodes(model) if node.name in in_int8)

    def measure(keep: Collection[str]) -> ParityReport:
        if set(keep) >= set(products):  # nothing is left to be quantised
            return comparison.compare(REFERENCE, batch=1).parity
        staged = _stage(bundle, quantise_calibrated(model, ranges, form, keep).model, folder)
        variants = {bundle.sha256: replace(staged, variant=form)}
        return comparison.compare(replace(runtime, variants=variants), batch=1).parity

    parity, sensitive = _without_sensitive(products, measure, force)
    if sensitive:
        quantised = quantise_calibrated(model, ranges, form, sensitive)
    compared = f"{form} on {runtime.device}, with fp32"
    return _Made(
        bundle, form, quantised.model, quantised.quantised, sensitive, quantised.kept, compared, parity
    )


def _runtime_of(form: Form) -> Runtime:
    """The runtime that a form is for, if it is here; what is for TensorRT runs slowly in ONNX Runtime."""
    openvino = form == "int8-u8" and find_spec("openvino") is not None
    return Runtime("openvino" if openvino else "cpu", "int8", threads=1)


def _without_sensitive(
    candidates: Sequence[str], measure: Callable[[Collection[str]], ParityReport], force: bool
) -> tuple[ParityReport, tuple[str, ...]]:
    """Decisions with all candidates in lower precision, or with all but those that spoil them."""
    parity = measure(())
    if parity.excess <= MARGIN or force:
        return parity, ()
    _log.info(
        "Decisions differ by %.2g times what is accepted, and %g is aimed at: looking for sensitive nodes",
        parity.excess,
        MARGIN,
    )
    measured: dict[tuple[str, ...], ParityReport] = {(): parity}

    def excess(keep: Collection[str]) -> float:
        kept = tuple(keep)
        if kept not in measured:
            measured[kept] = measure(kept)
            told = "  %d nodes kept in fp32: %.2g times what is accepted"
            _log.info(told, len(kept), measured[kept].excess)
        return measured[kept].excess

    try:
        found = find_sensitive(candidates, excess, bar=MARGIN)
    except BundleError:  # out of reach, whatever stays in fp32
        return parity, ()
    return measured[found.nodes], found.nodes


def _read(network: Bundle) -> onnx.ModelProto:
    return read_model(network.graph(), f"The file {network.onnx}")


def _stage(network: Bundle, model: onnx.ModelProto, folder: Path) -> Bundle:
    """Write a graph where engines can open it, over the one that was tried before."""
    return write_bundle(replace(network, onnx=folder / network.onnx.name), serialise(model))


def _publish(bundle: Bundle, made: Sequence[_Made], force: bool) -> tuple[Converted, ...]:
    """Write all variants, or none if the decisions of one differ too much."""
    for each in made:
        if not (each.parity.accepted or force):
            raise BundleError(
                f"{bundle.name} in {each.variant} decides otherwise than in fp32: "
                f"{'; '.join(each.parity.shortfalls)}",
                "Nothing was written. Compare on your photographs (--check DATA), or add --force.",
            )
    return tuple(
        Converted(_write(each), each.parity, len(each.lowered), each.sensitive, each.kept) for each in made
    )


def _write(made: _Made) -> Bundle:
    network = made.network
    decided = {"lowered": len(made.lowered), "guilty": list(made.sensitive), "kept": dict(made.kept)}
    conversion = {**decided, "compared": made.compared}
    variant = replace(
        network,
        onnx=network.beside(f"{made.variant}.onnx"),
        source={**network.source, "conversion": conversion},
        parity=made.parity.as_json(),
        parts={},
        files={},
        variant=made.variant,
        variant_of=network.sha256,
    )
    return write_bundle(variant, serialise(made.model))
