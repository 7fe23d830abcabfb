"""Choose a runtime: OpenVINO where it is installed and decides as ONNX Runtime, the reference, does.

The two run the same drawn pictures, once for each bundle and pair of versions; the cache keeps the verdict.
A model that is asked for a class by its name runs on the reference: drawn pictures say little about the names
that it will be asked for, and comparing would take minutes.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

import fgdd_fast
from fgdd_fast.cache import cache_folder
from fgdd_fast.crops import candidate_boxes
from fgdd_fast.drawing import CLASSES, draw
from fgdd_fast.engines.base import Array, Device, Precision
from fgdd_fast.engines.bundle import Bundle
from fgdd_fast.engines.files import write_file
from fgdd_fast.engines.opening import available_devices
from fgdd_fast.errors import EngineError, MissingExtraError
from fgdd_fast.networks import BatchedNetwork, Images, Runtime
from fgdd_fast.resize import resize

PICTURES = 12
FEWEST_PICTURES = 4
# A network larger than this is shown fewer pictures in proportion, so that comparing takes a minute or two.
FULL_COMPARISON = 100_000_000  # bytes of the ONNX file
CROPS = 5
# How far a runtime's decisions may lie from the reference's for `auto` to take it.
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
    if len(installed) == 1:
        return Choice(installed[0], "the only runtime installed")
    if bundle.prompting is not None:
        return Choice("cpu", "no runtimes are compared on a model that is asked for a class by its name")
    try:
        agreement = _remembered_agreement(bundle, precision)
    except EngineError as error:
        return Choice("cpu", f"OpenVINO cannot run this model: {error.problem}")
    verdict = f"its {agreement.measure} is {agreement.error:.2g} (at most {agreement.bar:g} is accepted)"
    if agreement.accepted:
        return Choice("openvino", f"OpenVINO agrees with ONNX Runtime: {verdict}")
    return Choice("cpu", f"OpenVINO does not agree with ONNX Runtime: {verdict}")


def _remembered_agreement(bundle: Bundle, precision: Precision) -> Agreement:
    bars = (PICTURES, FEWEST_PICTURES, FULL_COMPARISON, CROPS, OCCUPANCY_ERROR, LOSS_REGRET, COSINE_DISTANCE)
    versions = (fgdd_fast.__version__, version("onnxruntime"), version("openvino"), _processor())
    key = hashlib.sha256(repr((bundle.sha256, precision, bars, versions)).encode()).hexdigest()
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
    size = (bundle.preprocessing.width, bundle.preprocessing.height)
    pictures = [_picture(index) for index in range(_picture_count(bundle))]
    if bundle.role == "foreground":
        feeds = {"images": np.stack([resize(picture, size, "area") for picture in pictures])}
        expected, found = (_run(bundle, runtime, feeds, "occupancy") for runtime in (reference, candidate))
        return Agreement("mean occupancy error", float(np.abs(expected - found).mean()), OCCUPANCY_ERROR)
    parts = (part for index, picture in enumerate(pictures) for part in _parts(picture, index))
    feeds = {"images": np.stack([resize(part, size, "area") for part in parts])}
    if bundle.role == "teacher":
        regret = _measure_regret(bundle, reference, candidate, feeds["images"])
        return Agreement("mean regret of the chosen crop, in nats,", regret, LOSS_REGRET)
    expected, found = (_run(bundle, runtime, feeds, "features") for runtime in (reference, candidate))
    return Agreement("mean cosine distance of features", _cosine_distance(expected, found), COSINE_DISTANCE)


def _picture_count(bundle: Bundle) -> int:
    size = bundle.onnx.stat().st_size
    return max(min(PICTURES, PICTURES * FULL_COMPARISON // size), FEWEST_PICTURES)


def _picture(index: int) -> Images:
    height, width = ((480, 640), (640, 480), (400, 400))[index % 3]
    occupancy = 0.1 + 0.7 * index / PICTURES
    return draw(CLASSES[index % len(CLASSES)], occupancy, (height, width), seed=index).pixels


def _parts(picture: Images, index: int) -> list[Images]:
    """The whole picture, then candidate crops of it."""
    height, width = picture.shape[:2]
    boxes = candidate_boxes(f"picture {index}", width, height, count=CROPS, seed=0)
    return [picture, *(picture[box.y : box.y + box.height, box.x : box.x + box.width] for box in boxes)]


def _run(bundle: Bundle, runtime: Runtime, feeds: Mapping[str, Array], output: str) -> NDArray[np.float32]:
    # A batch of two: a runtime that mistakes a graph's axes may still be right on single images.
    with closing(BatchedNetwork(bundle, runtime, batch=2)) as network:
        return network.run(feeds, [output])[output]


def _measure_regret(bundle: Bundle, reference: Runtime, candidate: Runtime, views: Images) -> float:
    """`_regret` of a candidate's losses, for the class that the reference sees in each whole picture.

    Views are [pictures * (1 + CROPS), height, width, 3], each picture's whole view first.
    """
    logits = _run(bundle, reference, {"images": views, "labels": np.zeros(len(views), np.int32)}, "logits")
    labels = np.repeat(logits[:: 1 + CROPS].argmax(axis=1), 1 + CROPS).astype(np.int32)
    expected = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return _regret(expected, _run(bundle, candidate, {"images": views, "labels": labels}, "loss"))


def _regret(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """How much worse the crops chosen by the losses `found` are, by the losses `expected`; mean, in nats.

    Losses are [pictures * (1 + CROPS)], each picture's whole view first.
    """
    true_losses, losses = (array.reshape(-1, 1 + CROPS)[:, 1:] for array in (expected, found))
    chosen = true_losses[np.arange(len(true_losses)), losses.argmin(axis=1)]
    return float((chosen - true_losses.min(axis=1)).mean())


def _cosine_distance(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Mean over rows of 1 - the cosine of the angle between features [n, channels] each."""
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    return float(1 - ((expected * found).sum(axis=1) / lengths).mean())
