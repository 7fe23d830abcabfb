"""The foreground model that a user names: found, checked before anything is measured, and opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fgdd_engines.bundle.bundle import Bundle, load_bundle
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.models.catalogue.catalogue import find_bundle, own_bundle_path
from fgdd_fast.models.foreground import ForegroundModel
from fgdd_fast.models.given_masks import GivenMasks
from fgdd_fast.models.grounded_sam2 import GroundedSam2
from fgdd_fast.models.network import Runtime
from fgdd_fast.models.prompts import phrases_of
from fgdd_fast.models.saliency import SaliencyModel

MASKS = "masks"
SALIENCY = "saliency"  # short for the catalogue's model
GROUNDED = "grounded-sam2"  # the bundle that 'fgdd-fast export grounded-sam2' writes unless told otherwise
ALIASES = {SALIENCY: "saliency-u2netp"}


@dataclass(frozen=True)
class ForegroundChoice:
    """A foreground model, and how it is asked.

    Attributes:
        source: the bundle, or the folder of masks.
        classes: those of the images.
        prompts: the phrases of each class, where the model is asked for classes by their names; else empty.
        box_threshold: score in [0, 1] above which such a model takes a box; None for others.
    """

    source: Bundle | Path
    classes: Sequence[str]
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    box_threshold: float | None = None

    @property
    def name(self) -> str:
        """The bundle's name, or `masks`; free of machine paths."""
        return self.source.name if isinstance(self.source, Bundle) else MASKS


def choose_foreground(
    name: str,
    classes: Sequence[str],
    *,
    prompts: Mapping[str, tuple[str, ...]] | None = None,
    box_threshold: float | None = None,
) -> ForegroundChoice:
    """Find the foreground model that a user names, and settle how it is asked for each class.

    Args:
        name: a name of the catalogue, the path of a bundle, or `masks:FOLDER`.
        classes: those of the data set.
        prompts: phrases by class; a class that is not among them is asked for by its name.
        box_threshold: score above which a box is taken; the bundle's own by default.

    Raises:
        BundleError: there is no such bundle, or it is damaged or of another role.
        SettingsError: an option does not apply to this model, or a class's name is nothing to look for.
    """
    source = find_foreground(name)
    if isinstance(source, Bundle) and source.prompting is not None:
        threshold = source.prompting.threshold if box_threshold is None else box_threshold
        phrases = {class_name: phrases_of(class_name, prompts or {}) for class_name in classes}
        return ForegroundChoice(source, classes, phrases, threshold)
    given = {"--prompts": prompts, "--box-threshold": box_threshold}
    for option, value in given.items():
        if value is not None:
            raise SettingsError(
                f"{option} does not apply to the foreground model {name}, which is asked for no class",
                f"Leave {option} out, or name a Grounded SAM 2 bundle with --foreground.",
            )
    return ForegroundChoice(source, classes)


def find_foreground(name: str) -> Bundle | Path:
    """The bundle that a user names, or the folder of masks in `masks:FOLDER`.

    Args:
        name: `saliency`, `grounded-sam2`, `masks:FOLDER`, a name of the catalogue, or the path of a bundle.

    Raises:
        BundleError: there is no such bundle, or it is damaged or of another role.
        SettingsError: no folder is named.
    """
    kind, colon, folder = name.partition(":")
    if name == GROUNDED:
        return _own_grounded()
    if (kind, colon) != (MASKS, ":"):
        return find_bundle(ALIASES.get(name, name), "foreground")
    if not folder:
        raise SettingsError(f"The foreground model {name} names no folder", f"Write {MASKS}:FOLDER.")
    return Path(folder)


def find_network(name: str) -> Bundle:
    """The bundle that a user names, whatever its role.

    Args:
        name: `saliency`, `grounded-sam2`, a name of the catalogue, or the path of a bundle.

    Raises:
        BundleError: there is no such bundle, or it is damaged.
    """
    return _own_grounded() if name == GROUNDED else find_bundle(ALIASES.get(name, name))


def _own_grounded() -> Bundle:
    onnx = own_bundle_path(GROUNDED)
    if not onnx.with_suffix(".json").exists():
        raise BundleError(
            f"The model {GROUNDED} has not been exported yet",
            f"Where PyTorch is, run: fgdd-fast export {GROUNDED} "
            "--detector IDEA-Research/grounding-dino-tiny --segmenter facebook/sam2.1-hiera-tiny   "
            "Or name a bundle by its path.",
        )
    return load_bundle(onnx, "foreground")


def open_foreground(
    choice: ForegroundChoice,
    *,
    runtime: Callable[[Bundle], Runtime],
    batch: int,
    resize: ResizeMethod,
    threads: int,
) -> ForegroundModel:
    """Open a foreground model.

    Args:
        choice: which one.
        runtime: how a bundle's engine is to be opened.
        batch: images an inference.
        resize: how images are brought to a model's size.
        threads: masks that may be read at the same time, where masks are given.

    Raises:
        FgddError: the masks, the prompts or the runtime cannot be used.
    """
    source = choice.source
    if isinstance(source, Path):
        return GivenMasks(source, streams=threads)
    if source.prompting is None:
        return SaliencyModel(source, runtime(source), batch=batch, resize=resize)
    return GroundedSam2(
        source,
        runtime(source),
        batch=batch,
        resize=resize,
        classes=choice.classes,
        prompts=choice.prompts,
        threshold=choice.box_threshold,
    )
