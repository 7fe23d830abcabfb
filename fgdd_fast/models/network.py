"""Networks at a fixed batch, and the teacher: a classifier that scores views."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.base import Array, Device, Engine, Precision
from fgdd_engines.bundle.bundle import Bundle, load_bundle
from fgdd_engines.factory import open_engine
from fgdd_fast.class_names import ByClassName
from fgdd_fast.errors import BundleError, EngineError, SettingsError, TeacherError
from fgdd_fast.images.tiles import ScoreView, teacher_view, view_size

_log = logging.getLogger(__name__)

Images = NDArray[np.uint8]

# Views that the teacher scores in one inference, for each image of a batch: an image has 6 by default.
# It does not follow the number of crops, so that more crops leave the losses of the others as they are.
VIEWS_PER_INFERENCE = 6

_SAME = "Install the same versions of everything on all machines, and the same models."


@dataclass(frozen=True)
class Runtime:
    """How engines are opened.

    Attributes:
        device: the backend.
        precision: of the arithmetic; `auto` is the fastest that the device really has.
        threads: processor threads, each of which runs one inference at a time.
        variants: graphs that run in place of others, by the SHA-256 of the graph that each stands for.
        one_stream: whether all threads run one inference at a time, which takes less memory.
    """

    device: Device
    precision: Precision
    threads: int
    variants: Mapping[str, Bundle] = field(default_factory=dict)
    one_stream: bool = False


class _Opened(NamedTuple):
    """How an engine was opened: see `open_engine`."""

    graph: Path
    device: Device
    precision: Precision
    axes: tuple[tuple[str, int], ...]
    threads: int
    one_stream: bool

    def open(self, bundle: Bundle) -> Engine:
        """Open a bundle so."""
        given = {name: value for name, value in self._asdict().items() if name != "graph"}
        return open_engine(bundle, **{**given, "axes": dict(self.axes)})


@cache
def _open_received(opened: _Opened, model: str) -> Engine:
    """Open an engine for networks that come from another process: one for all that are alike.

    It stays open as long as the process. `model` is the bundle's fingerprint.
    """
    bundle = load_bundle(opened.graph)
    if bundle.fingerprint != model:
        raise EngineError(f"The model file {opened.graph} is another one here", _SAME)
    return opened.open(bundle)


class BatchedNetwork:
    """A bundle's engine at a fixed batch: inputs are cut into batches, and the last one is filled up.

    The batch is always whole, so a sample's result does not depend on how many came with it.

    One that is pickled opens anew where it arrives, as it was opened here, from files at the same paths. It
    raises a BundleError or an EngineError if these are others, or if it would compute otherwise there.

    Args:
        bundle: the network.
        runtime: how its engine is opened.
        batch: samples an inference.
        height, width: pixels of the input, where the bundle leaves them open; by default those for which the
            network was made.

    Attributes:
        size: (width, height) of the input in pixels.
        description: the runtime and its streams, for reports.
        streams: how many calls are worth having in flight.
        fingerprint: everything but the inputs that a result depends on.
    """

    def __init__(
        self,
        bundle: Bundle,
        runtime: Runtime,
        *,
        batch: int,
        height: int | None = None,
        width: int | None = None,
    ) -> None:
        height, width = height or bundle.preprocessing.height, width or bundle.preprocessing.width
        lengths = {"batch": batch, "height": height, "width": width}
        named = {axis for spec in bundle.inputs for axis in spec.shape if isinstance(axis, str)}
        self.bundle = bundle
        self.batch = batch
        self.size = (width, height)
        graph = runtime.variants.get(bundle.sha256, bundle)
        # Where some graphs of a bundle have variants, the others stay as they are.
        stays = bool(runtime.variants) and graph is bundle
        self._opened = _Opened(
            graph.onnx,
            runtime.device,
            "fp32" if stays else runtime.precision,
            tuple((axis, length) for axis, length in lengths.items() if axis in named),
            runtime.threads,
            runtime.one_stream,
        )
        self.engine = self._opened.open(graph)
        self.description = self.engine.description
        self.streams = self.engine.streams
        self.fingerprint: Mapping[str, str] = {
            "model": graph.fingerprint,
            "runtime": self.engine.arithmetic,
            "size": f"{width}x{height}",
            "batch": str(batch),
        }

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "engine"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.engine = _open_received(self._opened, self.fingerprint["model"])
        if self.engine.arithmetic != self.fingerprint["runtime"]:
            here, there = self.engine.arithmetic, self.fingerprint["runtime"]
            raise EngineError(f"{self.bundle.name} runs on {here} here, not on {there}", _SAME)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Some outputs for any number of samples, at least one, along the first axis of each feed."""
        parts = [
            {name: array[:count] for name, array in self.engine.run(part, outputs).items()}
            for part, count in self._parts(feeds)
        ]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in outputs}

    def _parts(self, feeds: Mapping[str, Array]) -> Iterator[tuple[dict[str, Array], int]]:
        total = len(next(iter(feeds.values())))
        for start in range(0, total, self.batch):
            count = min(self.batch, total - start)
            part = {name: feed[start : start + count] for name, feed in feeds.items()}
            if count < self.batch:
                part = {name: _filled(feed, self.batch) for name, feed in part.items()}
            yield part, count

    def close(self) -> None:
        """Free the runtime's memory."""
        self.engine.close()


def stacked(samples: Sequence[Array]) -> Array:
    """Samples along a first axis; a single one is not copied."""
    return samples[0][None] if len(samples) == 1 else np.stack(samples)


def _filled(feed: Array, length: int) -> Array:
    filling = np.repeat(feed[-1:], length - len(feed), axis=0)
    return np.concatenate([feed, filling])


class Teacher(BatchedNetwork):
    """A classifier that scores views of an image, and says which label stands for which class.

    Args:
        bundle: the classifier, with its class names; or its cropped-input graph, which pads tiles itself.
        view: how a tile is shown to it.
        tile_size: side of a tile in pixels, which is the input's side for the view `native`.
        batch: views an inference.
    """

    def __init__(
        self, bundle: Bundle, runtime: Runtime, *, view: ScoreView, tile_size: int, batch: int
    ) -> None:
        if bundle.classes is None:
            raise BundleError(f"The teacher {bundle.onnx} does not name its classes")
        pads_itself = bundle.tile_of is not None
        if pads_itself:
            _check_cropped_graph(bundle, view, tile_size)
        side = tile_size if pads_itself else view_size(view, tile_size, bundle.preprocessing.width)
        fixed = bundle.inputs[0].shape[1:3]
        if any(isinstance(length, int) and length != side for length in fixed):
            raise SettingsError(
                f"The teacher {bundle.name} takes views of {' x '.join(map(str, fixed))} pixels, not of "
                f"{side}",
                "Use --score-view pad or resize.",
            )
        if view == "pad" and bundle.preprocessing.pad_value is None:
            raise SettingsError(
                f"The teacher {bundle.name} has no pixel value that stands for zero padding",
                "Use --score-view resize or native.",
            )
        super().__init__(bundle, runtime, batch=batch, height=side, width=side)
        self.view = view
        self.tile_size = tile_size
        self._pad_value = bundle.preprocessing.pad_value or (0, 0, 0)
        self._pads_itself = pads_itself
        self._labels = ByClassName.places(bundle.classes)

    def label(self, class_name: str) -> int:
        """The index of a class among the teacher's outputs."""
        return self._labels[class_name]

    def show(self, tile: Images) -> Images:
        """A tile uint8 [tile, tile, 3] as it is shown to the teacher, uint8 [height, width, 3]."""
        if self._pads_itself:
            return tile
        return teacher_view(tile, self.view, self.size[0], self._pad_value)

    def losses(self, images: Images, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Cross-entropies (nats) [n] of views uint8 [n, height, width, 3] in RGB for labels [n]."""
        return self.run({"images": images, "labels": labels}, ["loss"])["loss"]

    def losses_of(self, views: Sequence[Images], class_names: Sequence[str]) -> NDArray[np.float32]:
        """Cross-entropies (nats) [n] of views, each uint8 [height, width, 3] in RGB, for a class each."""
        if not views:
            return np.empty(0, np.float32)
        labels = [self.label(name) for name in class_names]
        return self.losses(stacked(views), np.array(labels, np.int32))

    def logits(self, images: Images) -> NDArray[np.float32]:
        """Logits [n, classes] of views uint8 [n, height, width, 3] in RGB."""
        feeds: dict[str, Array] = {"images": images, "labels": np.zeros(len(images), np.int32)}
        return self.run(feeds, ["logits"])["logits"]

    def features(self, images: Images) -> NDArray[np.float32]:
        """Features [n, channels], which the head multiplies, of views uint8 [n, height, width, 3] in RGB.

        Raises:
            TeacherError: the teacher gives none.
        """
        check_features(self.bundle)
        feeds: dict[str, Array] = {"images": images, "labels": np.zeros(len(images), np.int32)}
        return self.run(feeds, ["features"])["features"]


def open_teacher(
    bundle: Bundle,
    *,
    runtime: Callable[[Bundle], Runtime],
    view: ScoreView,
    tile_size: int,
    batch: int,
) -> Teacher:
    """Open a teacher: its cropped-input graph where one lies beside it for these tiles, and runs as asked.

    Args:
        bundle: the teacher.
        runtime: chooses how a bundle runs.
        view: how a tile is shown; only for `pad` are there cropped-input graphs.
        tile_size: side of a tile in pixels.
        batch: views an inference.

    Raises:
        FgddError: the teacher cannot run as asked, or its cropped-input graph is damaged, or of another one.
    """
    cropped = bundle.find_cropped_graph(tile_size) if view == "pad" else None
    if cropped is not None:
        try:
            return Teacher(cropped, runtime(cropped), view=view, tile_size=tile_size, batch=batch)
        except (SettingsError, EngineError) as error:  # no variant, or no engine, was made of it
            _log.info("%s: not used. %s", cropped.onnx.stem, error.problem)
    return Teacher(bundle, runtime(bundle), view=view, tile_size=tile_size, batch=batch)


def _check_cropped_graph(bundle: Bundle, view: ScoreView, tile_size: int) -> None:
    size = bundle.preprocessing.width
    if view != "pad" or tile_size != size:
        raise SettingsError(
            f"The bundle {bundle.onnx} is a teacher that takes tiles of {size} pixels, padding them",
            "Name the teacher itself.",
        )


def check_classes(teacher: Bundle, folder_classes: Sequence[str]) -> None:
    """Make sure that the teacher knows every class of the data set, by name.

    Raises:
        TeacherError: it does not; the message names the classes.
    """
    known = ByClassName.places(teacher.classes or ())
    missing = [name for name in folder_classes if name not in known]
    if missing:
        raise TeacherError(
            f"The teacher {teacher.name} does not know {_some(missing)}; it knows {_some(sorted(known))}",
            "Fit one on these classes: fgdd-fast teacher fit DATA -o BUNDLE   Or, if it knows them by other "
            "names: fgdd-fast teacher rename BUNDLE --from DATA -o RENAMED",
        )


def check_features(teacher: Bundle) -> None:
    """Make sure that the teacher gives its features, which some rankings need.

    Raises:
        TeacherError: it does not.
    """
    if all(spec.name != "features" for spec in teacher.outputs):
        raise TeacherError(
            f"The teacher {teacher.name} gives no features, by which tiles could be told apart",
            "Fit it again: fgdd-fast teacher fit DATA -o BUNDLE   Or rank without: --ranking stratified",
        )


def fingerprint_text(*parts: Mapping[str, str]) -> str:
    """One text for everything that a measurement depends on; equal texts mean equal measurements."""
    merged = {name: value for part in parts for name, value in part.items()}
    return json.dumps(merged, sort_keys=True)


def _some(names: Sequence[str], limit: int = 10) -> str:
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
