"""The lengths of a model's named axes, and the check that a graph has the tensors that its sidecar says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.errors import EngineError

Specs = tuple[TensorSpec, ...]


def fix_axes(bundle: Bundle, axes: Mapping[str, int]) -> tuple[Specs, Specs]:
    """Return a bundle's inputs and outputs, every axis a number.

    Raises EngineError where `axes` misses an axis, has one that the inputs do not have, or a length below 1;
    or an output has an axis of its own, whose length is not known before the model runs.
    """
    named = {axis for spec in bundle.inputs for axis in spec.shape if isinstance(axis, str)}
    if axes.keys() != named:
        raise EngineError(
            f"The inputs of '{bundle.name}' have the axes {sorted(named)} to choose, but got {sorted(axes)}"
        )
    for axis, length in axes.items():
        if length < 1:
            raise EngineError(f"The axis '{axis}' of '{bundle.name}' cannot have the length {length}")
    for spec in bundle.outputs:
        if unknown := [axis for axis in spec.shape if isinstance(axis, str) and axis not in named]:
            raise EngineError(
                f"Output '{spec.name}' of '{bundle.name}' has the axes {unknown}, no input does"
            )
    return _fixed(bundle.inputs, axes), _fixed(bundle.outputs, axes)


def _fixed(specs: Specs, axes: Mapping[str, int]) -> Specs:
    return tuple(replace(spec, shape=fixed_shape(spec, axes)) for spec in specs)


def fixed_shape(spec: TensorSpec, axes: Mapping[str, int]) -> tuple[int, ...]:
    """Return a tensor's shape, every axis a number."""
    return tuple(axes[axis] if isinstance(axis, str) else axis for axis in spec.shape)


def check_graph(bundle: Bundle, expected: Specs, found: Sequence[TensorSpec]) -> None:
    """Raise EngineError unless the tensors that a runtime found in a graph are those of the sidecar.

    The order does not matter, and an axis to which the runtime gives no length agrees with any length.
    """
    by_name = {spec.name: spec for spec in found}
    agree = by_name.keys() == {spec.name for spec in expected} and all(
        spec.dtype == by_name[spec.name].dtype and _may_be(by_name[spec.name].shape, spec.shape)
        for spec in expected
    )
    if not agree:
        raise EngineError(
            f"The sidecar of '{bundle.name}' says {_in_words(expected)}; its graph has {_in_words(found)}",
            "Pull or make the bundle again.",
        )


def _may_be(found: tuple[int | str, ...], expected: tuple[int | str, ...]) -> bool:
    return len(found) == len(expected) and all(
        isinstance(a, str) or a == b for a, b in zip(found, expected, strict=True)
    )


def _in_words(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name}: {spec.dtype} {list(spec.shape)}" for spec in specs)
