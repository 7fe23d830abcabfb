"""A bundle: an ONNX file and, beside it, a JSON sidecar that says what it is.

`NAME.onnx` and `NAME.json` lie in one folder. The sidecar comes last, so a bundle with a sidecar is whole.
A bundle may have parts, which are bundles of their own (`NAME.PART.onnx` and `NAME.PART.json`), and attached
files (`NAME.FILE`), among them those in which the ONNX file keeps weights; its sidecar holds their hashes.
It may have variants, which are the same network in another precision (`NAME.fp16.onnx` and
`NAME.fp16.json`); the sidecar of each holds the hash of the graph for which it stands. A teacher may have
cropped-input graphs, bundles of their own that take tiles and pad them themselves (`NAME.tile112.onnx` for
tiles of 112 pixels).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from fgdd_engines.base import Precision, TensorSpec
from fgdd_engines.bundle.external_weights import external_names
from fgdd_engines.bundle.files import file_sha256, stage_file
from fgdd_engines.bundle.schema import SchemaError, free, read_json
from fgdd_engines.bundle.sidecar import sidecar
from fgdd_engines.errors import BundleError
from fgdd_engines.file_lock import exclusive_lock, has_locks

FORMAT = 1
AGAIN = "Pull or make the bundle again; do not use this file."
Role = Literal[
    "foreground",
    "teacher",
    "backbone",
    "detector",
    "text-encoder",
    "segmenter",
    "image-encoder",
    "mask-decoder",
]
ROLES: tuple[Role, ...] = get_args(Role)
# `int8` is symmetric (s8 activations), which is what TensorRT takes; `int8-u8` has unsigned activations,
# which is what processors compute fastest, in ONNX Runtime and in OpenVINO.
Variant = Literal["fp16", "bf16", "int8", "int8-u8"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
_SIDECAR = sidecar(ROLES, VARIANTS)
_SHOWN_IMAGES = set(ROLES) - {"text-encoder", "mask-decoder"}
_AS_THEY_ARE = (
    *("name", "role", "sha256", "source", "licence", "parity", "accuracy", "prompting"),
    *("parts", "files", "variant", "variant_of", "tile_of"),
)


@dataclass(frozen=True)
class Preprocessing:
    """What the graph itself does to its uint8 RGB NHWC input; the host only resizes.

    Attributes:
        height, width: pixels of the input for which the model was made.
        description: the normalisation inside the graph, in words.
        pad_value: RGB value (0..255) that the normalisation takes to zero, or nearest to it; what
            zero-padding means in pixels. None where the model has no such value.
    """

    height: int
    width: int
    description: str
    pad_value: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Bundle:
    """A model on disk with its description.

    Attributes:
        onnx: path of the ONNX file.
        name: short name for reports, free of machine paths.
        role: `foreground` (outputs `occupancy` float32 [batch] in [0, 1] and `mask` uint8
            [batch, height, width]), `teacher` (also takes `labels` int32 [batch]; outputs `logits` float32
            [batch, classes] and `loss` float32 [batch], nats; a fitted one also `features` float32
            [batch, channels], which its head multiplies) or `backbone` (outputs `features`). All take
            `images` uint8 [batch, height, width, 3], RGB. A foreground model of a family that adds
            `prompting` has that family's tensors. The other roles are networks of such a model:
            `text-encoder`, `detector`, `segmenter` (made of `image-encoder` and `mask-decoder`).
        sha256: hexadecimal hash of the ONNX file.
        inputs, outputs: the graph's tensors; axes that an engine may choose are named.
        preprocessing: what the graph does to its input.
        classes: a teacher's class names in the order of its logits, also of its class activation map; None
            otherwise.
        source: where the weights come from (package or repository, file, sha256, version).
        licence: SPDX identifier of the weights' licence.
        parity: what was measured of this file against the network that it was made from.
        accuracy: what was measured of a teacher on held-out images; empty otherwise.
        prompting: what a family of foreground models adds, such as how the model is asked for a class; only
            the family reads it. None for a model that needs no prompt.
        parts: the SHA-256 of the ONNX file of each part, by the part's name.
        files: the SHA-256 of each attached file, by what its name adds, such as `tokenizer.json`.
        variant: the precision into which the graph was converted; None for the fp32 graph as it was made.
        variant_of: of a variant, the SHA-256 of the fp32 graph for which it stands.
        tile_of: of a teacher's cropped-input graph, the SHA-256 of the teacher's graph; `preprocessing` has
            the tile's size. None for everything else.
    """

    onnx: Path
    name: str
    role: Role
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    source: Mapping[str, Any]
    licence: str
    parity: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    prompting: Mapping[str, Any] | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    variant: Variant | None = None
    variant_of: str | None = None
    tile_of: str | None = None

    @property
    def sidecar(self) -> Path:
        """Path of the JSON sidecar."""
        return self.onnx.with_suffix(".json")

    @property
    def precision(self) -> Precision:
        """The precision in which the graph is: its variant's, or fp32."""
        if self.variant is None:
            return "fp32"
        return "int8" if self.variant == "int8-u8" else self.variant

    @property
    def fingerprint(self) -> str:
        """Hash of the ONNX file and of the files in which it keeps weights; `sha256` where it keeps none."""
        hashes = {name: self.files[name] for name in external_names(self.onnx, self.files)}
        whole = json.dumps([self.sha256, hashes], sort_keys=True).encode()
        return hashlib.sha256(whole).hexdigest() if hashes else self.sha256

    def graph(self) -> bytes:
        """The serialised graph, to make another one of it; BundleError where weights would be left behind."""
        if names := external_names(self.onnx, self.files):
            raise BundleError(
                f"The graph {self.onnx} keeps weights in {', '.join(names)}, so nothing can be made of it",
                "Save it with its weights inside: onnx.save(onnx.load(FILE), FILE)",
            )
        try:
            return self.onnx.read_bytes()
        except OSError as error:
            raise BundleError(f"The model file {self.onnx} cannot be read: {error.strerror}") from error

    def beside(self, name: str) -> Path:
        """Path of a part's ONNX file (`PART.onnx`) or of an attached file (`tokenizer.json`)."""
        return self.onnx.with_name(f"{self.onnx.stem}.{name}")

    def part(self, name: str) -> Bundle:
        """Load a part; BundleError where it is missing, damaged, or of another bundle."""
        bundle = load_bundle(self.beside(f"{name}.onnx"))
        if bundle.sha256 != self.parts[name]:
            raise BundleError(
                f"The part {bundle.onnx} does not belong to the bundle {self.onnx}",
                "Make the bundle again, all parts in one go.",
            )
        return bundle

    def find_variant(self, variant: Variant) -> Bundle | None:
        """Load this graph in another precision; None where there is none, BundleError where it is damaged."""
        bundle = self._load_beside(variant)
        if bundle is not None and (bundle.variant, bundle.variant_of) != (variant, self.sha256):
            raise BundleError(
                f"The bundle {bundle.onnx} is not the {variant} variant of {self.onnx.name}",
                f"Convert it again: fgdd-fast convert {self.onnx} --precision {variant.partition('-')[0]}",
            )
        return bundle

    def find_cropped_graph(self, tile: int) -> Bundle | None:
        """Load the form of this teacher that takes tiles of so many pixels a side; None where there is none.

        Raises:
            BundleError: it is damaged, or belongs to another teacher.
        """
        bundle = self._load_beside(f"tile{tile}")
        if bundle is not None and (bundle.tile_of, bundle.preprocessing.width) != (self.sha256, tile):
            raise BundleError(
                f"The bundle {bundle.onnx} does not belong to the teacher {self.onnx.name}",
                f"Make it again: fgdd-fast teacher tile {self.onnx} --tile {tile}",
            )
        return bundle

    def _load_beside(self, name: str) -> Bundle | None:
        """Load another form of this network, if it has a sidecar."""
        onnx = self.beside(f"{name}.onnx")
        return load_bundle(onnx, self.role) if onnx.with_suffix(".json").exists() else None

    def cropped_graphs(self) -> tuple[Bundle, ...]:
        """Load all forms of this teacher that take tiles, smallest tiles first; see `find_cropped_graph`."""
        names = (path.name for path in self.onnx.parent.glob("*.tile*.onnx"))
        found = (re.fullmatch(rf"{re.escape(self.onnx.stem)}\.tile(\d+)\.onnx", name) for name in names)
        forms = (self.find_cropped_graph(tile) for tile in sorted(int(match[1]) for match in found if match))
        return tuple(form for form in forms if form is not None)

    def file(self, name: str) -> Path:
        """Path of an attached file; BundleError where it is missing or changed."""
        path = self.beside(name)
        if _file_hash(path) != self.files[name]:
            raise BundleError(f"The file {path} is not the one that {self.sidecar.name} describes", AGAIN)
        return path


def load_bundle(path: Path, role: Role | None = None) -> Bundle:
    """Read a bundle's sidecar and check its ONNX file against it, with all files that hold weights of it.

    Args:
        path: the ONNX file, the sidecar, or the two without their suffix.
        role: the role that the bundle must have, if any.

    Raises:
        BundleError: the bundle is missing, incomplete, damaged, or has another role; or it has weights of
            which the sidecar has no hash.
    """
    onnx = path.with_suffix(".onnx") if path.suffix in (".onnx", ".json") else Path(f"{path}.onnx")
    bundle = _read_sidecar(onnx)
    if role is not None and bundle.role != role:
        raise BundleError(f"The bundle {onnx} is a {bundle.role}, but a {role} is needed here")
    found = _file_hash(onnx)
    if found != bundle.sha256:
        raise BundleError(
            f"The model file {onnx} is not the one that its sidecar describes: its SHA-256 is {found}, "
            f"the sidecar says {bundle.sha256}",
            AGAIN,
        )
    for name in external_names(onnx, bundle.files):
        bundle.file(name)
    return bundle


def _file_hash(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise BundleError(f"The model file {path} cannot be read: {error.strerror}") from error


def _read_sidecar(onnx: Path) -> Bundle:
    path = onnx.with_suffix(".json")
    try:
        data = read_json(path.read_text(encoding="utf-8"), free)
    except FileNotFoundError as error:
        raise BundleError(
            f"There is no bundle {onnx}: its sidecar {path.name} is missing",
            "A bundle is an ONNX file with a JSON file of the same name beside it.",
        ) from error
    except (OSError, ValueError) as error:
        raise BundleError(f"The sidecar {path} cannot be read: {error}") from error
    try:
        if data["format"] != FORMAT:
            raise BundleError(
                f"The sidecar {path} has format {data['format']}, and this version reads format {FORMAT}"
            )
        if data["role"] not in ROLES:
            raise BundleError(f"The sidecar {path} has the unknown role {data['role']!r}")
        _SIDECAR(data, "")
    except (KeyError, TypeError, SchemaError) as error:
        raise BundleError(f"The sidecar {path} lacks or garbles a field: {error}", AGAIN) from error
    preprocessing = data["preprocessing"]
    if data["role"] in _SHOWN_IMAGES and not min(preprocessing["height"], preprocessing["width"]):
        raise BundleError(f"The sidecar {path} lacks or garbles a field: images of no pixels", AGAIN)
    return Bundle(
        onnx=onnx,
        preprocessing=Preprocessing(
            preprocessing["height"],
            preprocessing["width"],
            preprocessing["description"],
            None if preprocessing["pad_value"] is None else tuple(preprocessing["pad_value"]),
        ),
        inputs=_specs(data["inputs"]),
        outputs=_specs(data["outputs"]),
        classes=None if data["classes"] is None else tuple(data["classes"]),
        **{name: data[name] for name in _AS_THEY_ARE if name in data},
    )


def _specs(rows: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(row["name"], row["dtype"], tuple(row["shape"])) for row in rows)


def write_bundle(bundle: Bundle, model: bytes) -> Bundle:
    """Write a bundle whole or not at all, over an older one of the same name.

    Both files are on disk before the first is renamed; should the machine stop between the two renames, the
    hash in the old sidecar refuses the new ONNX file. Several writers take turns, and each clears away what a
    killed one left.

    Args:
        bundle: the description; its `sha256` is replaced by the hash of `model`.
        model: the serialised ONNX graph.

    Returns:
        The bundle as written.
    """
    bundle = replace(bundle, sha256=hashlib.sha256(model).hexdigest())
    staged: dict[Path, Path] = {}
    try:
        bundle.onnx.parent.mkdir(parents=True, exist_ok=True)
        with _staging(bundle.onnx) as folder:
            for path, content in ((bundle.onnx, model), (bundle.sidecar, sidecar_text(bundle))):
                staged[path] = stage_file(folder / path.suffix, content)
            for path, temporary in staged.items():
                temporary.replace(path)
    except OSError as error:
        raise BundleError(f"The bundle {bundle.onnx} cannot be written: {error.strerror}") from error
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)
    return bundle


def _staging(onnx: Path) -> AbstractContextManager[Path]:
    """Hold others back who write the same bundle, where files can be locked; a folder on the same disk."""
    if not has_locks(onnx.parent):
        return nullcontext(onnx.parent)
    short = hashlib.sha256(os.fsencode(onnx.name)).hexdigest()[:16]  # the name itself may be as long as any
    return exclusive_lock(onnx.parent, short, on_wait=lambda: None)


def sidecar_text(bundle: Bundle) -> bytes:
    """Return what a bundle's sidecar holds."""
    data = asdict(bundle)
    del data["onnx"]
    return (json.dumps({"format": FORMAT, **data}, indent=2, ensure_ascii=True) + "\n").encode()
