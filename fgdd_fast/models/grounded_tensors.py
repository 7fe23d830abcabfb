"""The tensors of a Grounded SAM 2 bundle, and the check that a bundle has them.

In the joint form one graph takes everything. In the split form the bundle has a part `segmenter`, and the
main graph takes no `images` and gives `boxes` and `scores` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle, Role
from fgdd_fast.errors import BundleError
from fgdd_fast.models.prompts import Prompting

Specs = tuple[TensorSpec, ...]

IMAGES = TensorSpec("images", "uint8", ("batch", "side", "side", 3))
BOXES = TensorSpec("boxes", "float32", ("batch", "boxes", 4))
SCORES = TensorSpec("scores", "float32", ("batch", "boxes"))
THRESHOLD = TensorSpec("threshold", "float32", ("batch",))
TEXT_FEATURES = TensorSpec("text_features", "float32", ("batch", "tokens", "channels"))
TEXT_POSITIONS = TensorSpec("text_positions", "float32", ("batch", "tokens", "channels"))

# The edges of boxes (left, top, right, bottom) are shares of the image. The best box comes first; where there
# is no further box its score is 0. `valid` holds the rows and columns of the canvas that the image fills,
# from the top left; `images` the whole image, squashed.
DETECTOR_INPUTS: Specs = (
    TensorSpec("canvas", "uint8", ("batch", "canvas rows", "canvas columns", 3)),
    TensorSpec("valid", "int32", ("batch", 2)),
    TEXT_FEATURES,
    TEXT_POSITIONS,
    TensorSpec("text_mask", "float32", ("batch", "tokens")),
    TensorSpec("text_self_mask", "float32", ("batch", "tokens", "tokens")),
    THRESHOLD,
)
DETECTOR_OUTPUTS: Specs = (BOXES, SCORES)
SEGMENTER_INPUTS: Specs = (IMAGES, BOXES, SCORES)
SEGMENTER_OUTPUTS: Specs = (
    TensorSpec("occupancy", "float32", ("batch",)),
    TensorSpec("mask", "uint8", ("batch", "mask rows", "mask columns")),
)
TEXT_INPUTS: Specs = (
    TensorSpec("input_ids", "int32", ("batch", "tokens")),
    TensorSpec("self_mask", "float32", ("batch", "tokens", "tokens")),
    TensorSpec("position_ids", "int32", ("batch", "tokens")),
)
TEXT_OUTPUTS: Specs = (TEXT_FEATURES, TEXT_POSITIONS)


def with_lengths(specs: Specs, lengths: Mapping[str, int]) -> Specs:
    """Return tensors whose axes have these lengths; axes that are not among them keep their names."""
    return tuple(
        TensorSpec(spec.name, spec.dtype, tuple(lengths.get(str(axis), axis) for axis in spec.shape))
        for spec in specs
    )


@dataclass(frozen=True)
class GroundedBundle:
    """A bundle's networks, whose tensors have been checked, and the sizes that they share.

    Attributes:
        main: the joint graph, or the detector of the split form.
        text: encodes a prompt.
        segmenter: segments boxes; None in the joint form.
        prompting: how the model is asked for a class.
        canvas: height and width of the detector's input in pixels.
        side: height and width of `images` in pixels.
        mask: height and width of the mask in pixels.
    """

    main: Bundle
    text: Bundle
    segmenter: Bundle | None
    prompting: Prompting
    canvas: tuple[int, int]
    side: int
    mask: tuple[int, int]


def check_grounded(bundle: Bundle) -> GroundedBundle:
    """Load a bundle's parts and check the tensors of all.

    Raises:
        BundleError: the bundle is no Grounded SAM 2, or a part, a file or a tensor is missing or another.
    """
    prompting = Prompting.of(bundle, "foreground")
    if "text" not in bundle.parts:
        raise BundleError(f"The bundle {bundle.onnx} has no part 'text', which encodes prompts")
    if "tokenizer.json" not in bundle.files:
        raise BundleError(f"The bundle {bundle.onnx} has no file 'tokenizer.json'")
    axes = _Axes(prompting)
    text = _part(bundle, "text", "text-encoder")
    segmenter = _part(bundle, "segmenter", "segmenter") if "segmenter" in bundle.parts else None
    axes.check(text, TEXT_INPUTS, TEXT_OUTPUTS)
    if segmenter is None:
        axes.check(bundle, (*DETECTOR_INPUTS, IMAGES), (*DETECTOR_OUTPUTS, *SEGMENTER_OUTPUTS))
    else:
        axes.check(bundle, DETECTOR_INPUTS, DETECTOR_OUTPUTS)
        axes.check(segmenter, SEGMENTER_INPUTS, SEGMENTER_OUTPUTS)
    return GroundedBundle(
        main=bundle,
        text=text,
        segmenter=segmenter,
        prompting=prompting,
        canvas=(axes.length("canvas rows"), axes.length("canvas columns")),
        side=axes.length("side"),
        mask=(axes.length("mask rows"), axes.length("mask columns")),
    )


def _part(bundle: Bundle, name: str, role: Role) -> Bundle:
    part = bundle.part(name)
    if part.role != role:
        raise BundleError(f"The part {part.onnx} is a {part.role}, but a {role} is needed here")
    return part


class _Axes:
    """The lengths of the axes, each the same wherever it occurs."""

    def __init__(self, prompting: Prompting) -> None:
        self._lengths: dict[str, int | str] = {
            "batch": "batch",
            "tokens": prompting.text_length,
            "boxes": prompting.boxes,
        }

    def length(self, axis: str) -> int:
        """The length of an axis that has been met in a check."""
        return int(self._lengths[axis])

    def check(self, bundle: Bundle, inputs: Specs, outputs: Specs) -> None:
        """Check that a bundle takes these inputs and no others, and gives these outputs."""
        self._find(bundle, "input", inputs, bundle.inputs)
        self._find(bundle, "output", outputs, bundle.outputs)
        unknown = {spec.name for spec in bundle.inputs} - {spec.name for spec in inputs}
        if unknown:
            raise BundleError(f"The graph {bundle.onnx} takes the unknown inputs {sorted(unknown)}")

    def _find(self, bundle: Bundle, kind: str, wanted: Specs, found: Sequence[TensorSpec]) -> None:
        by_name = {spec.name: spec for spec in found}
        for spec in wanted:
            other = by_name.get(spec.name)
            if other is None:
                raise BundleError(f"The graph {bundle.onnx} has no {kind} '{spec.name}'")
            if other.dtype != spec.dtype or not self._agree(spec.shape, other.shape):
                shape = [self._lengths.get(str(axis), axis) for axis in spec.shape]
                raise BundleError(
                    f"The {kind} '{spec.name}' of {bundle.onnx} is {other.dtype} {list(other.shape)}, "
                    f"but {spec.dtype} {shape} is needed"
                )

    def _agree(self, wanted: tuple[int | str, ...], found: tuple[int | str, ...]) -> bool:
        if len(wanted) != len(found):
            return False
        for axis, length in zip(wanted, found, strict=True):
            expected = self._lengths.setdefault(axis, length) if isinstance(axis, str) else axis
            if length != expected or (isinstance(length, str) and axis != "batch"):
                return False
        return True
