"""What a check of a GPU takes to a machine without a network: bundles, images, and what is right.

    FOLDER/kit.json          names of the bundles, and what fp32 in ONNX Runtime on a CPU made of the images
    FOLDER/models/           graphs without weights, and the files beside them; see `skeletons`
    FOLDER/photographs/      one folder for each class
    FOLDER/scenes/           drawn scenes of things that are asked for by their names

Saliency model, backbone and teacher have their own weights. Those of Grounded SAM 2 are random, and drawn
anew: its times are those of a trained one, and its decisions mean nothing, but have to be the same.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import cv2
import numpy as np

from fgdd_bench.gpu_check.skeletons import Packer, fill
from fgdd_bench.harness.subject import choose_originals
from fgdd_engines.bundle.bundle import VARIANTS, Bundle, load_bundle, write_bundle
from fgdd_export.catalogue.prepare import pull_model
from fgdd_export.precision.conversion import convert
from fgdd_fast.errors import BundleError, MissingExtraError, OutputError
from fgdd_fast.images.dataset import scan
from fgdd_fast.models.factory import asked_by_class
from fgdd_fast.models.fitting import BACKBONE, fit_teacher
from fgdd_fast.output.folder import writing
from fgdd_fast.runtime.parity import Answer, Comparison
from fgdd_fast.runtime.sample_images import SampleImage, check_images, drawn_sample_images
from fgdd_fast.synthetic import CLASSES, write_drawn_dataset

SALIENCY, TEACHER, GROUNDED = "saliency", "teacher", "grounded"
PHOTOGRAPHS, SCENES = 120, 4
COMPARED = 12  # images on which decisions are compared
_FORMAT = 1
_PRECISIONS: tuple[Literal["fp16", "bf16", "int8"], ...] = ("fp16", "bf16", "int8")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kit:
    """A kit in a folder, with its bundles in another, and the reference's answers by a bundle's name."""

    folder: Path
    models: Path
    reference: Mapping[str, Any]

    @property
    def photographs(self) -> Path:
        """A data set whose classes the teacher knows."""
        return self.folder / "photographs"

    def bundle(self, name: str) -> Bundle:
        """Return a bundle; a BundleError where it is not what it was."""
        return load_bundle(self.models / f"{name}.onnx")

    def images(self, bundle: Bundle) -> tuple[SampleImage, ...]:
        """Return the images on which a bundle's decisions are compared."""
        folder = self.folder / "scenes" if asked_by_class(bundle) else self.photographs
        return check_images(folder, COMPARED, {})

    def comparison(self, name: str) -> Comparison:
        """Return what candidates are compared with: what the reference answered when the kit was made."""
        bundle, told = self.bundle(name), self.reference[name]
        labels = None if told["labels"] is None else tuple(told["labels"])
        expected = Answer(np.array(told["values"], np.float32), 0.0, "", labels)
        return Comparison(bundle, self.images(bundle), expected=expected)


def open_kit(folder: Path, models: Path, *, filled: bool = True) -> Kit:
    """Open a kit, and fill its graphs into a folder, unless they are there.

    Raises:
        BundleError: something of it is missing or damaged.
    """
    try:
        kit = json.loads((folder / "kit.json").read_text(encoding="utf-8"))
        if kit["format"] != _FORMAT:
            raise BundleError(f"The kit {folder} is of another version", "Remove it, and make it again.")
        opened = Kit(folder, models, kit["reference"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        advice = f"Make one, on a machine with a network: fgdd-fast doctor --gpu-kit {folder}"
        raise BundleError(f"There is no kit in {folder}: {error}", advice) from error
    if not filled:
        shutil.copytree(folder / "models", models, ignore=shutil.ignore_patterns("*.graph", "weights.*"))
        for skeleton in (folder / "models").glob("*.graph"):
            (models / skeleton.name).with_suffix(".onnx").write_bytes(fill(folder / "models", skeleton.name))
    return opened


def make_kit(folder: Path, data: Path | None = None) -> None:
    """Make a kit of the catalogue's models, a teacher, and a Grounded SAM 2 where one can be exported.

    Args:
        folder: that is not there yet.
        data: photographs, one folder for each class; some are copied. None to draw pictures.

    Raises:
        FgddError: the images or a model cannot be had, or the folder cannot be written.
    """
    _refuse(folder)
    with TemporaryDirectory() as name:
        work = Path(name)
        if data is None:
            data = work / "drawn"
            write_drawn_dataset(data, images_per_class=PHOTOGRAPHS // len(CLASSES), seed=0)
        for place, original in enumerate(choose_originals(scan(data), PHOTOGRAPHS, 0)[0]):
            target = work / "photographs" / original.image.class_name
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(original.image.path, target / f"{place:03d}{original.image.path.suffix}")
        write_kit(folder, tuple(_models(work, work / "photographs")), work / "photographs")


def _models(folder: Path, photographs: Path) -> Iterator[Bundle]:
    """Make the bundles and their variants."""
    images = check_images(photographs, COMPARED, {})
    plain = [_copied(pull_model("saliency-u2netp"), folder / SALIENCY)]
    plain.append(_copied(pull_model(BACKBONE), folder / "backbone"))
    plain.append(fit_teacher(photographs, folder / TEACHER, force=True).bundle)
    for bundle in plain:
        for precision in _PRECISIONS:
            try:
                convert(bundle, precision, images, calibration=images)
            except BundleError as error:
                _log.warning("%s", error.problem)
        yield from (bundle, *bundle.cropped_graphs())
    try:
        grounded = import_module("fgdd_bench.references.grounded.random_grounded").random_grounded().bundle
    except (ImportError, MissingExtraError) as error:
        _log.warning("Without a Grounded SAM 2, which cannot be exported here: %s", error)
        return
    bundle = _copied(grounded, folder / GROUNDED)
    for precision in _PRECISIONS[:2]:
        convert(bundle, precision, drawn_sample_images(1, named=True), force=True)
    yield bundle


def _copied(bundle: Bundle, path: Path) -> Bundle:
    """Copy a bundle with its parts and files under another name."""
    parts = [f"{part}.{kind}" for part in bundle.parts for kind in ("onnx", "json")]
    for suffix in ("onnx", "json", *parts, *bundle.files):
        shutil.copyfile(bundle.beside(suffix), f"{path}.{suffix}")
    return load_bundle(path)


def _refuse(folder: Path) -> None:
    if folder.exists():
        raise OutputError(f"{folder} is there already", "Remove it, or name another folder.")


def write_kit(
    folder: Path, bundles: Sequence[Bundle], photographs: Path, scenes: Sequence[SampleImage] = ()
) -> None:
    """Write a kit of bundles with their variants and parts; a cropped-input graph after its teacher.

    Those that are asked for a class by its name are asked about scenes, by default drawn ones, and get drawn
    weights where they are large.

    Raises:
        OutputError: the folder is there already, or cannot be written.
        FgddError: a bundle is damaged, or cannot run on the processor.
    """
    _refuse(folder)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
            staging, models = Path(name, "kit"), Path(name, "models")
            shutil.copytree(photographs, staging / "photographs")
            for place, scene in enumerate(scenes or drawn_sample_images(SCENES, named=True)):
                file = staging / "scenes" / scene.image.class_name / f"{place}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(file), cv2.cvtColor(scene.pixels, cv2.COLOR_RGB2BGR))
            _pack(bundles, staging / "models", models)
            told = {
                bundle.onnx.stem: _answers(Kit(staging, models, {}), bundle.onnx.stem) for bundle in bundles
            }
            (staging / "kit.json").write_text(json.dumps({"format": _FORMAT, "reference": told}))
            staging.rename(folder)


def _answers(kit: Kit, name: str) -> dict[str, Any]:
    _log.info("What %s decides in fp32 on this processor", name)
    bundle = kit.bundle(name)
    expected = Comparison(bundle, kit.images(bundle)).expected
    return {"values": expected.values.tolist(), "labels": expected.labels}


def _pack(bundles: Sequence[Bundle], folder: Path, models: Path) -> None:
    """Write skeletons of bundles and of all that belongs to them, and what they will be filled to."""
    folder.mkdir()
    packer, hashes = Packer(folder), dict[str | None, str]()

    def pack(bundle: Bundle, drawn: bool) -> None:
        parts = {name: bundle.part(name) for name in bundle.parts}
        for part in parts.values():
            pack(part, drawn)
        name = bundle.onnx.with_suffix(".graph").name
        packer.cut(name, bundle.graph(), drawn=drawn)
        described = replace(
            bundle,
            onnx=models / bundle.onnx.name,
            parts={name: hashes[part.sha256] for name, part in parts.items()},
            variant_of=hashes.get(bundle.variant_of),
            tile_of=hashes.get(bundle.tile_of),
        )
        written = write_bundle(described, fill(folder, name))
        hashes[bundle.sha256] = written.sha256
        for file in (written.sidecar, *(shutil.copy(bundle.file(file), models) for file in bundle.files)):
            shutil.copy(file, folder)
        for variant in VARIANTS if bundle.variant is None else ():
            if (found := bundle.find_variant(variant)) is not None:
                pack(found, drawn)

    for bundle in bundles:
        pack(bundle, asked_by_class(bundle))
