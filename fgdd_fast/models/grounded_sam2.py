"""Grounded SAM 2: a detector finds boxes for a class's name, and a segmenter the objects in them.

Grounding DINO (https://arxiv.org/abs/2303.05499) and SAM 2 (https://arxiv.org/abs/2408.00714), in a bundle
that `fgdd_export` made; its tensors are those of `fgdd_fast.models.grounded_tensors`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.base import Array
from fgdd_engines.bundle.bundle import Bundle, load_bundle
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.resize import ResizeMethod, resize_arithmetic
from fgdd_fast.images.resize import resize as resize_image
from fgdd_fast.models.catalogue.catalogue import own_bundle_path
from fgdd_fast.models.foreground import (
    Foreground,
    ForegroundChoice,
    ForegroundFamily,
    Inputs,
    Pixels,
    Prompts,
    ScoredBox,
    Source,
)
from fgdd_fast.models.grounded_tensors import check_grounded
from fgdd_fast.models.network import BatchedNetwork, Runtime, stacked
from fgdd_fast.models.prompts import Prompting, PromptTokenizer, TokenisedPrompt, phrases_of, prompt_text


class GroundedSam2:
    """A `ForegroundModel` that looks for the objects that an image's class names.

    What `prepare` takes of an image: `canvas`, `valid`, `images` and `threshold`, as in
    `fgdd_fast.models.grounded_tensors` without their batch axis; and `class` int32 [], its class among all.

    Args:
        bundle: in the joint form, or in the split one, whose segmenter runs only where boxes were found.
        runtime: how its engines are opened.
        batch: images an inference.
        resize: how images are resized.
        classes: of the images.
        prompts: what to look for instead of a class's name, as `read_prompts` gives it.
        threshold: score in [0, 1] above which a box is taken; the bundle's own when None.

    Attributes:
        tokens: those of each prompt, by its text; all are encoded when the model is opened.

    Raises:
        SettingsError: a class cannot be looked for, or the threshold is no score.
        BundleError: the bundle is no Grounded SAM 2, or damaged.
        MissingExtraError: the tokenizer's package or the runtime is not installed.
        EngineError: the runtime cannot load a graph.
    """

    def __init__(
        self,
        bundle: Bundle,
        runtime: Runtime,
        *,
        batch: int,
        resize: ResizeMethod,
        classes: Sequence[str],
        prompts: Mapping[str, tuple[str, ...]],
        threshold: float | None,
    ) -> None:
        parts = check_grounded(bundle)
        threshold = parts.prompting.threshold if threshold is None else threshold
        if not 0 <= threshold <= 1:
            raise SettingsError(f"A box's score lies between 0 and 1, so {threshold} cannot be its threshold")
        self._prompting = parts.prompting
        self._canvas, self._side, self._mask = parts.canvas, parts.side, parts.mask
        self._resize: ResizeMethod = resize
        self._threshold = np.float32(threshold)
        self._places = {name: place for place, name in enumerate(classes)}
        form = parts.prompting.form
        self._prompts = {name: prompt_text(phrases_of(name, prompts), form) for name in classes}
        tokenizer = PromptTokenizer(bundle.file("tokenizer.json"), parts.prompting)
        self.tokens = {prompt: tokenizer.encode(prompt) for prompt in self._prompts.values()}
        with closing(TextEncoder(parts.text, runtime)) as encoder:
            encoded = encoder.encode_all(self.tokens)
        self._encoded = [encoded[self._prompts[name]] for name in classes]
        self._main = BatchedNetwork(bundle, runtime, batch=batch)
        self._hashes = {**bundle.parts, **bundle.files}
        self._segmenter: BatchedNetwork | None = None
        if parts.segmenter is not None:
            self._segmenter = BatchedNetwork(parts.segmenter, runtime, batch=batch)
            self._hashes["segmenter"] = self._segmenter.fingerprint["model"]  # a variant's, where one runs
        self.name = bundle.name
        self.sha256 = bundle.sha256
        self.description = self._main.engine.arithmetic
        self.streams = self._main.streams

    def prompt(self, class_name: str) -> str:
        """The prompt by which a class is looked for."""
        return self._prompts[class_name]

    def fingerprint(self, class_name: str) -> Mapping[str, str]:
        """See `ForegroundModel.fingerprint`."""
        return {
            **self._main.fingerprint,
            **self._hashes,
            "fit": f"{self._prompting.fit} {self._prompting.shortest_edge}",
            "resize": resize_arithmetic(self._resize),
            "threshold": str(self._threshold),
            "prompt": self._prompts[class_name],
        }

    def prepare(self, pixels: Pixels, image: SourceImage) -> Inputs:
        """See `ForegroundModel.prepare`."""
        canvas, valid = bring_to_canvas(pixels, self._canvas, self._prompting, self._resize)
        return {
            "canvas": canvas,
            "valid": valid,
            "images": resize_image(pixels, (self._side, self._side), self._resize),
            "threshold": np.asarray(self._threshold),
            "class": np.asarray(self._places[image.class_name], np.int32),
        }

    def find(self, prepared: Sequence[Inputs], *, masks: bool = False) -> list[Foreground]:
        """See `ForegroundModel.find`."""
        if not prepared:
            return []
        feeds = _stacked([{**inputs, **self._encoded[int(inputs["class"])]} for inputs in prepared])
        del feeds["class"]
        wanted = ["occupancy", "mask"] if masks else ["occupancy"]
        if self._segmenter is None:
            found = self._main.run(feeds, ["boxes", "scores", *wanted])
        else:
            images = feeds.pop("images")
            found = self._main.run(feeds, ["boxes", "scores"])
            found |= self._segment(self._segmenter, {"images": images, **found}, wanted)
        return [_foreground(found, place) for place in range(len(prepared))]

    def _segment(
        self, segmenter: BatchedNetwork, feeds: Mapping[str, Array], wanted: Sequence[str]
    ) -> dict[str, Array]:
        """Segment the images in which boxes were found; in the others nothing is foreground."""
        count = len(feeds["scores"])
        results: dict[str, Array] = {"occupancy": np.zeros(count, np.float32)}
        if "mask" in wanted:
            results["mask"] = np.zeros((count, *self._mask), np.uint8)
        detected = np.flatnonzero((feeds["scores"] > 0).any(axis=1))
        if len(detected):
            found = segmenter.run({name: feed[detected] for name, feed in feeds.items()}, wanted)
            for name, array in found.items():
                results[name][detected] = array
        return results

    def close(self) -> None:
        """Free the runtime's memory."""
        self._main.close()
        if self._segmenter is not None:
            self._segmenter.close()


class TextEncoder:
    """Encodes prompts for the detector, one at a time.

    It is large, and needed once for each class, so it is closed before the other networks are opened.

    Args:
        bundle: the text encoder.
        runtime: how its engine is opened.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        self._network = BatchedNetwork(bundle, runtime, batch=1)

    def encode_all(self, prompts: Mapping[str, TokenisedPrompt]) -> dict[str, Inputs]:
        """What the detector takes of prompts, by their text."""
        with ThreadPoolExecutor(self._network.streams, "encode") as executor:
            return dict(zip(prompts, executor.map(self.encode, prompts.values()), strict=True))

    def encode(self, prompt: TokenisedPrompt) -> Inputs:
        """What the detector takes of a prompt; for any thread."""
        feeds = {
            "input_ids": prompt.input_ids,
            "self_mask": prompt.self_mask,
            "position_ids": prompt.position_ids,
        }
        encoded = self._network.run(_stacked([feeds]), ["text_features", "text_positions"])
        return {
            "text_features": encoded["text_features"][0],
            "text_positions": encoded["text_positions"][0],
            "text_mask": prompt.mask,
            "text_self_mask": prompt.self_mask,
        }

    def close(self) -> None:
        """Free the runtime's memory."""
        self._network.close()


def bring_to_canvas(
    pixels: Pixels, size: tuple[int, int], prompting: Prompting, method: ResizeMethod
) -> tuple[Pixels, NDArray[np.int32]]:
    """Bring an image to the detector's canvas of `size`, (height, width), as a bundle's prompting says.

    Returns:
        As `letterbox`.
    """
    height, width = size
    if prompting.fit == "letterbox":
        return letterbox(pixels, height, width, prompting.shortest_edge, method)
    return resize_image(pixels, (width, height), method), np.array(size, np.int32)


def letterbox(
    pixels: Pixels, height: int, width: int, shortest_edge: int, method: ResizeMethod
) -> tuple[Pixels, NDArray[np.int32]]:
    """Bring an image to a canvas, keeping its aspect.

    Args:
        pixels: uint8 [rows, columns, 3].
        height, width: of the canvas in pixels.
        shortest_edge: pixels to which the image's shorter side is brought, where the canvas has room for it.
        method: how the image is resized.

    Returns:
        The canvas, uint8 [height, width, 3]: the image as large as fits, from the top left, and zeros; and
        the rows and columns that the image fills, int32 [2], at least 1 each.
    """
    rows, columns = pixels.shape[:2]
    scale = min(height / rows, width / columns, shortest_edge / min(rows, columns))
    valid = (max(1, round(rows * scale)), max(1, round(columns * scale)))
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[: valid[0], : valid[1]] = resize_image(pixels, (valid[1], valid[0]), method)
    return canvas, np.array(valid, np.int32)


def _stacked(samples: Sequence[Inputs]) -> dict[str, Array]:
    return {name: stacked([sample[name] for sample in samples]) for name in samples[0]}


def _foreground(found: Mapping[str, Array], place: int) -> Foreground:
    """One image's foreground; only boxes with a score are real."""
    boxes = [
        ScoredBox(float(left), float(top), float(right), float(bottom), float(score))
        for (left, top, right, bottom), score in zip(
            found["boxes"][place], found["scores"][place], strict=True
        )
        if score > 0
    ]
    return Foreground(
        occupancy=float(np.clip(found["occupancy"][place], 0, 1)),  # a float32 mean may pass 1 by a bit
        boxes=tuple(boxes),
        mask=found["mask"][place] if "mask" in found else None,
    )


class _Grounded(ForegroundFamily):
    name = spelling = "grounded-sam2"  # the bundle that 'fgdd-fast export grounded-sam2' writes by itself
    asked_by_class = True

    def find(self, argument: str) -> Bundle:  # noqa: ARG002 - there is one
        onnx = own_bundle_path(self.name)
        if not onnx.with_suffix(".json").exists():
            raise BundleError(
                f"The model {self.name} has not been exported yet",
                f"Where PyTorch is, run: fgdd-fast export {self.name} "
                "--detector IDEA-Research/grounding-dino-tiny --segmenter facebook/sam2.1-hiera-tiny   "
                "Or name a bundle by its path.",
            )
        return load_bundle(onnx, "foreground")

    def choose(
        self, source: Source, classes: Sequence[str], *, prompts: Prompts | None, box_threshold: float | None
    ) -> ForegroundChoice:
        assert isinstance(source, Bundle)
        threshold = Prompting.of(source).threshold if box_threshold is None else box_threshold
        phrases = {class_name: phrases_of(class_name, prompts or {}) for class_name in classes}
        return ForegroundChoice(source, classes, phrases, threshold, self)

    def open(
        self,
        choice: ForegroundChoice,
        *,
        runtime: Callable[[Bundle], Runtime],
        batch: int,
        resize: ResizeMethod,
        threads: int,  # noqa: ARG002 - the runtime has its own
    ) -> GroundedSam2:
        assert isinstance(choice.source, Bundle)
        return GroundedSam2(
            choice.source,
            runtime(choice.source),
            batch=batch,
            resize=resize,
            classes=choice.classes,
            prompts=choice.prompts,
            threshold=choice.box_threshold,
        )


GROUNDED = _Grounded()
