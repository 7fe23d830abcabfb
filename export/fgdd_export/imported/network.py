"""An ONNX file of any exporter, read as a network of images: its layout, its side, its input in pixels."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Preprocessing
from fgdd_export.graphs.graph import (
    OPSET,
    Array,
    GraphBuilder,
    check_model,
    cut_model,
    load_model,
    serialise,
    tensor_specs,
)
from fgdd_export.graphs.late_onnx import onnx
from fgdd_fast.errors import BundleError, FgddError, SettingsError

Layout = Literal["nchw", "nhwc"]
_PREFIX = "net_"
_NAMES = ("names", "classes", "class_names", "labels", "id2label")  # of metadata in which classes are named


@dataclass(frozen=True)
class Normalisation:
    """What becomes of pixels of 0 to 255: (value - mean) / std, for each channel.

    Attributes:
        mean, std: of red, green and blue.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def of_shares(mean: Sequence[float], std: Sequence[float]) -> Normalisation:
    """Return the normalisation of a mean and a standard deviation for values in 0 to 1."""
    return Normalisation(tuple(255 * value for value in mean), tuple(255 * value for value in std))


NORMALISATIONS: Mapping[str, Normalisation] = {
    "imagenet": of_shares((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": of_shares((0, 0, 0), (1, 1, 1)),
    "symmetric": of_shares((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": Normalisation((0, 0, 0), (1, 1, 1)),
}
NORMALISATIONS_HELP = (
    "imagenet: ImageNet's mean and standard deviation of values in 0 to 1; unit: values in 0 to 1; "
    "symmetric: in -1 to 1; none: in 0 to 255"
)


@dataclass(frozen=True)
class OnnxNetwork:
    """A network that takes images, and gives one tensor of interest.

    Attributes:
        file: where it was read.
        model: at `OPSET`, of any batch; all its names begin with a prefix of their own.
        layout: of its input.
        side: of its input in pixels.
        output: the tensor, with the shape that it has for one image.
        last: the operator that gives it.
        softmax: whether the file has a softmax after it, which is left away.
        original: what the file itself gives of that tensor, for one image.
        names: of classes, by the file's metadata; None where it has none.
    """

    file: Path
    model: onnx.ModelProto
    layout: Layout
    side: int
    output: TensorSpec
    last: str
    softmax: bool
    original: Callable[[NDArray[np.float32]], Array]
    names: tuple[str, ...] | None

    def reference(self, images: Array, normalisation: Normalisation) -> NDArray[np.float64]:
        """Run the file as it is on images uint8 [n, side, side, 3], RGB, one by one, normalised by NumPy."""
        values = (images - np.array(normalisation.mean)) / np.array(normalisation.std)
        planes = (values.transpose(0, 3, 1, 2) if self.layout == "nchw" else values).astype(np.float32)
        return np.concatenate([self.original(each[None]) for each in planes]).astype(np.float64)

    def preprocessing(self, normalisation: Normalisation) -> Preprocessing:
        """Describe what the graph is going to do to its input."""
        mean, std = (
            ", ".join(f"{value:g}" for value in each) for each in (normalisation.mean, normalisation.std)
        )
        red, green, blue = (min(max(round(value), 0), 255) for value in normalisation.mean)
        return Preprocessing(self.side, self.side, f"(value - ({mean})) / ({std})", (red, green, blue))

    def from_pixels(self, normalisation: Normalisation, tensor: str) -> GraphBuilder:
        """Return a graph from `images` uint8 [batch, side, side, 3], RGB, to a tensor of the network."""
        builder = GraphBuilder("fgdd_")
        pixels = builder.cast("images", np.float32)
        pixels = builder.node("Sub", pixels, builder.constant(normalisation.mean))
        pixels = builder.node("Div", pixels, builder.constant(normalisation.std))
        name = self.model.graph.input[0].name
        if self.layout == "nchw":
            builder.node("Transpose", pixels, output=name, perm=[0, 3, 1, 2])
        else:
            builder.node("Identity", pixels, output=name)
        nodes, constants = cut_model(self.model, [tensor])
        builder.nodes += nodes
        builder.constants += constants
        return builder

    @property
    def images(self) -> TensorSpec:
        """The input of what `from_pixels` makes."""
        return TensorSpec("images", "uint8", ("batch", self.side, self.side, 3))


def read_network(
    file: Path, *, layout: Layout | None = None, size: int | None = None, output: str | None = None
) -> OnnxNetwork:
    """Read an ONNX file of a network of images.

    Args:
        file: it, with weights in other files beside it where it keeps them there.
        layout: of its input; told from the input's shape by default.
        size: side of the images in pixels, where the input's shape leaves it open.
        output: the tensor of interest; the first output by default. Where a softmax gives it, that of which
            it is the softmax.

    Raises:
        SettingsError: layout or size are not told by the file and not given, or are others; no such output.
        BundleError: the file is no such network.
    """
    try:
        model = onnx.load(str(file))
        check_model(model)
    except FgddError:
        raise
    except Exception as error:  # of protobuf, or of files, whose types differ between versions
        raise BundleError(f"The file {file} is no ONNX model that can be read: {error}") from error
    _refuse_unusual(model, file)
    constants = {each.name for each in model.graph.initializer}
    inputs = tensor_specs([value for value in model.graph.input if value.name not in constants])
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].dtype != "float32":
        found = ", ".join(f"{each.name} {each.dtype} {list(each.shape)}" for each in inputs)
        raise BundleError(f"{file} does not take one float32 tensor of images alone, but {found}")
    makers = {name: node for node in model.graph.node for name in node.output}
    wanted = output or model.graph.output[0].name
    if wanted not in makers:
        named = ", ".join(value.name for value in model.graph.output)
        raise SettingsError(f"{file} has no tensor {wanted!r}", f"Its outputs are: {named}")
    softmax = makers[wanted].op_type == "Softmax"
    wanted = makers[wanted].input[0] if softmax else wanted
    laid = _layout(inputs[0], layout)
    side = _side(inputs[0], laid, size)
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(wanted, onnx.TensorProto.FLOAT, None))
    run = load_model(serialise(model))
    shape = (1, 3, side, side) if laid == "nchw" else (1, side, side, 3)
    answer = run({inputs[0].name: np.zeros(shape, np.float32)})[wanted]
    if answer.shape[:1] != (1,):
        raise BundleError(f"The tensor {wanted} of {file} is {list(answer.shape)}, not [batch, ...]")
    model.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info(wanted, onnx.TensorProto.FLOAT, ["batch", *answer.shape[1:]])
    )
    ready = _any_batch(model, inputs[0].name, shape)
    return OnnxNetwork(
        file=file,
        model=ready,
        layout=laid,
        side=side,
        output=TensorSpec(_PREFIX + wanted, "float32", tuple(answer.shape)),
        last=makers[wanted].op_type if wanted in makers else "",
        softmax=softmax,
        original=lambda planes: run({inputs[0].name: planes})[wanted],
        names=_names(model),
    )


def _refuse_unusual(model: onnx.ModelProto, file: Path) -> None:
    nodes = model.graph.node
    domains = {node.domain for node in nodes} - {"", "ai.onnx"}
    flow = {node.op_type for node in nodes} & {"If", "Loop", "Scan"}
    if domains or flow or model.functions:
        what = ", ".join(sorted(domains | flow)) or "functions of its own"
        raise BundleError(
            f"{file} has {what}, which no bundle may have", "Export the network again as plain operators."
        )


def _layout(images: TensorSpec, asked: Layout | None) -> Layout:
    channels: dict[Layout, int | str] = {"nchw": images.shape[1], "nhwc": images.shape[3]}
    fitting = [name for name, count in channels.items() if count == 3]
    if asked is None and len(fitting) == 1:
        return fitting[0]
    if asked is None:
        raise SettingsError(
            f"The input {list(images.shape)} does not tell which axis are the channels",
            "Say it: --layout nchw, or nhwc. They have to be three.",
        )
    if isinstance(channels[asked], int) and channels[asked] not in (0, 3):
        raise SettingsError(f"The input {list(images.shape)} is not {asked} of three channels")
    return asked


def _side(images: TensorSpec, layout: Layout, asked: int | None) -> int:
    sides = images.shape[2:] if layout == "nchw" else images.shape[1:3]
    fixed = {side for side in sides if isinstance(side, int) and side}
    if len(fixed) > 1:
        raise SettingsError(f"The network takes images of {' x '.join(map(str, sides))} pixels, not squares")
    if asked is not None and fixed - {asked}:
        raise SettingsError(f"The network takes images of {fixed.pop()} pixels a side, not of {asked}")
    if asked is None and not fixed:
        raise SettingsError("The network takes images of any size", "Say which they should have: --size 224")
    return asked or fixed.pop()


def _any_batch(model: onnx.ModelProto, images: str, shape: Sequence[int]) -> onnx.ModelProto:
    """The network for any batch of images of one size, at `OPSET`, with names of its own.

    A network that was exported for one image reshapes to it: where a Reshape says 1 for the batch, it is
    made to keep what there is. Whether that was right is seen when batches are compared with single images.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    value = next(each for each in copy.graph.input if each.name == images)
    for axis, length in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        axis.dim_value = length
    value.type.tensor_type.shape.dim[0].dim_param = "batch"
    weights = {each.name: each for each in copy.graph.initializer}
    for node in copy.graph.node:
        target = weights.get(node.input[1]) if node.op_type == "Reshape" else None
        if target is not None:
            lengths = onnx.numpy_helper.to_array(target).copy()
            if lengths.size > 1 and lengths[0] == 1:
                lengths[0] = 0
                target.CopyFrom(onnx.numpy_helper.from_array(lengths, target.name))
    try:
        if max(each.version for each in copy.opset_import if each.domain in ("", "ai.onnx")) != OPSET:
            copy = onnx.version_converter.convert_version(copy, OPSET)
        copy = onnx.compose.add_prefix(copy, _PREFIX)
        check_model(copy)
    except Exception as error:
        raise BundleError(
            f"The network cannot be written in ONNX's opset {OPSET}: {error}",
            f"Export it again with opset {OPSET} and a dynamic batch.",
        ) from error
    return copy


def _names(model: onnx.ModelProto) -> tuple[str, ...] | None:
    """The classes that the metadata name: a list, or an object by number, in JSON or Python."""
    found = {each.key.lower(): each.value for each in model.metadata_props}
    for key in _NAMES:
        try:
            value = ast.literal_eval(found.get(key, ""))
            if isinstance(value, dict):
                value = [value.get(place, value.get(str(place))) for place in range(len(value))]
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value):
            return tuple(value)
    return None
