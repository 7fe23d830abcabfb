"""Choose a runtime: OpenVINO where it is installed and its decisions agree with the reference, else ONNX Runtime.

The two run the same drawn pictures once for each bundle and pair of versions; the verdict is kept in the cache.
"""

from __future__ import annotations

import hashlib
import json
import platform
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.catalogue import cache_folder
from fgdd_fast.crops import candidate_boxes
from fgdd_fast.drawing import CLASSES, draw
from fgdd_fast.engines.base import Precision
from fgdd_fast.engines.bundle import Bundle, write_file
from fgdd_fast.engines.opening import Device, available_devices
from fgdd_fast.errors import EngineError, MissingExtraError
from fgdd_fast.networks import BatchedNetwork, Images, Runtime
from fgdd_fast.resize import resize

PICTURES = 12
CROPS = 5
# The bars that a runtime's decisions must reach to be taken by itself.
OCCUPANCY_ERROR = 0.01  # mean over the pictures
LOSS_REGRET = 0.02  # nats by which the crop chosen is worse than the reference's, mean over the pictures
COSINE_DISTANCE = 0.01  # of a view's features from the reference's, mean over the views


@dataclass(frozen=True)
class Agreement:
    """How a runtime's decisions compare with the reference's.

    Attributes:
        measure: what `error` is, in words.
        error: mean over the pictures.
        bar: the largest error that is accepted.
    """

    measure: str
    error: float
    bar: float

    @property
    def accepted(self) -> bool:
        """Whether the decisions agree."""
        return self.error <= self.bar


@dataclass(frozen=True)
class Choice:
    """A runtime, and why.

    Attributes:
        device: the runtime.
        reason: one sentence for reports.
    """

    device: Device
    reason: str


def choose_device(bundle: Bundle, requested: Device | Literal["auto"], precision: Precision) -> Choice:
    """The runtime to run a bundle on.

    Args:
        bundle: the model.
        requested: a runtime to be taken as it is, or `auto`.
        precision: what OpenVINO would compute in.

    Raises:
        MissingExtraError: no runtime is installed.
    """
    if requested != "auto":
        return Choice(requested, "asked for")
    installed = available_devices()
    if not installed:
        raise MissingExtraError("onnxruntime", "cpu")
    if installed == ("cpu",) or installed == ("openvino",):
        return Choice(installed[0], "the only runtime installed")
    try:
        agreement = _remembered_agreement(bundle, precision)
    except EngineError as error:
        return Choice("cpu", f"OpenVINO cannot run this model: {error.problem}")
    verdict = f"its {agreement.measure} is {agreement.error:.2g} (at most {agreement.bar:g} is accepted)"
    if agreement.accepted:
        return Choice("openvino", f"OpenVINO agrees with ONNX Runtime: {verdict}")
    return Choice("cpu", f"OpenVINO does not agree with ONNX Runtime: {verdict}")


def _remembered_agreement(bundle: Bundle, precision: Precision) -> Agreement:
    versions = (version("onnxruntime"), version("openvino"), platform.machine(), _processor())
    key = hashlib.sha256(repr((bundle.sha256, precision, *versions)).encode()).hexdigest()
    path = cache_folder() / "agreement" / f"{key}.json"
    try:
        return Agreement(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        agreement = measure_agreement(bundle, precision)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(asdict(agreement)).encode())
    except OSError:
        pass  # the next run compares again
    return agreement


def _processor() -> str:
    """The processor's model; where the system does not tell, its architecture has to do."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), platform.processor())


def measure_agreement(bundle: Bundle, precision: Precision) -> Agreement:
    """Run drawn pictures through OpenVINO and ONNX Runtime, and compare what would be decided.

    Raises:
        EngineError: a runtime cannot run the bundle.
    """
    reference = Runtime("cpu", "fp32", threads=1)
    candidate = Runtime("openvino", precision, threads=1)
    side = (bundle.preprocessing.width, bundle.preprocessing.height)
    pictures = [_picture(index) for index in range(PICTURES)]
    if bundle.role == "foreground":
        inputs = np.stack([resize(picture, side, "area") for picture in pictures])
        expected, found = (_run(bundle, runtime, inputs, "occupancy") for runtime in (reference, candidate))
        return Agreement("occupancy error", float(np.abs(expected - found).mean()), OCCUPANCY_ERROR)
    parts = (part for index, picture in enumerate(pictures) for part in _parts(picture, index))
    views = np.stack([resize(part, side, "area") for part in parts])
    if bundle.role == "teacher":
        expected, found = (_run(bundle, runtime, views, "logits") for runtime in (reference, candidate))
        return Agreement("regret of the chosen crop in nats", _regret(expected, found), LOSS_REGRET)
    expected, found = (_run(bundle, runtime, views, "features") for runtime in (reference, candidate))
    return Agreement("cosine distance of features", _cosine_distance(expected, found), COSINE_DISTANCE)


def _picture(index: int) -> Images:
    height, width = ((480, 640), (640, 480), (400, 400))[index % 3]
    occupancy = 0.1 + 0.7 * index / PICTURES
    return draw(CLASSES[index % len(CLASSES)], occupancy, (height, width), seed=index).pixels


def _parts(picture: Images, index: int) -> list[Images]:
    """The whole picture, then candidate crops of it."""
    height, width = picture.shape[:2]
    boxes = candidate_boxes(f"picture {index}", width, height, count=CROPS, seed=0)
    return [picture, *(picture[box.y : box.y + box.height, box.x : box.x + box.width] for box in boxes)]


def _run(bundle: Bundle, runtime: Runtime, images: Images, output: str) -> NDArray[np.float32]:
    side = bundle.preprocessing
    with closing(BatchedNetwork(bundle, runtime, batch=1, height=side.height, width=side.width)) as network:
        feeds = {"images": images}
        if bundle.role == "teacher":
            feeds["labels"] = np.zeros(len(images), np.int32)
        return network.run(feeds, output)


def _regret(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """How much worse the crops chosen by `found` are, by the losses of `expected`; logits [n, classes] each.

    The label of a picture is the reference's favourite on the whole of it.
    """
    shape = (PICTURES, 1 + CROPS, -1)
    expected, found = expected.reshape(shape), found.reshape(shape)
    labels = expected[:, 0].argmax(axis=1)
    rows = np.arange(PICTURES)
    true_losses, losses = (
        (np.logaddexp.reduce(logits, axis=2) - logits[rows, :, labels])[:, 1:] for logits in (expected, found)
    )
    return float((true_losses[rows, losses.argmin(axis=1)] - true_losses.min(axis=1)).mean())


def _cosine_distance(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Mean over rows of 1 - the cosine of the angle between features [n, channels] each."""
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    return float(1 - ((expected * found).sum(axis=1) / lengths).mean())
