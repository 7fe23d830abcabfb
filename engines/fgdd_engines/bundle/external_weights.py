"""Which files beside an ONNX file hold weights of it, read from the file without the package `onnx`.

An ONNX file may name other files for the content of its tensors (`TensorProto.external_data`), and every
runtime opens what it names. So the names are read before any runtime sees the file: those that could lead
out of its folder are refused, and the rest are held to the bundle's hashes.

A tensor may be wherever ONNX's schema has a TensorProto, nested to any depth in graphs, attributes and
functions. Only the lengths of fields are read on the way there, from a mapped file: no weight is touched.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto and
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from fgdd_engines.bundle.files import read_once
from fgdd_engines.errors import BundleError

_Buffer = mmap.mmap | bytes
# The fields of each message that lead to tensors, by number, with the message that each holds.
_NESTED: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
    "Entry": {},
}
_KEY, _VALUE = 1, 2  # fields of an entry of `external_data`
_DEEPEST = 100  # messages within messages, the most that protobuf's own parsers take
_LONGEST_VARINT = 10
_LARGEST_TAG = 0xFFFFFFFF
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # how a field is encoded; 3 and 4 are not used by ONNX


class _GarbledError(ValueError):
    """The bytes are not the encoding of any message."""


def external_files(onnx: Path) -> tuple[str, ...]:
    """Return the names of the files in which an ONNX file keeps weights, sorted; none for most files.

    Every name that is written down counts, even where the tensor also has its content in the ONNX file.
    Raises BundleError where the file is no ONNX model, or a name is not that of a plain file in the same
    folder: an absolute path, another folder, a drive, a link that leads elsewhere.
    """
    try:
        names = _names_in(onnx)
    except OSError as error:
        raise BundleError(f"The model file {onnx} cannot be read: {error.strerror}") from error
    except _GarbledError as error:
        raise BundleError(f"The model file {onnx} is no ONNX model: {error}") from error
    for name in names:
        _check_place(onnx, name)
    return names


@read_once
def _names_in(onnx: Path) -> tuple[str, ...]:
    with onnx.open("rb") as file:
        if file.seek(0, 2) == 0:
            return ()  # which cannot be mapped
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return tuple(sorted(set(_locations(content))))


def external_names(onnx: Path, files: Mapping[str, str]) -> tuple[str, ...]:
    """Those of a bundle's attached files in which its ONNX file keeps weights.

    `files` are the hashes of the attached files, by what the name of each adds to the ONNX file's stem.
    Raises BundleError where weights are in a file that is not attached; or see `external_files`.
    """
    attached = {f"{onnx.stem}.{name}": name for name in files}
    locations = external_files(onnx)
    unknown = [location for location in locations if location not in attached]
    if unknown:
        raise BundleError(
            f"The model file {onnx} keeps weights in {unknown}, of which its sidecar has no hash",
            "Weights without a hash are not loaded: make the bundle again with its weights in the ONNX file.",
        )
    return tuple(attached[location] for location in locations)


def _check_place(onnx: Path, name: str) -> None:
    refused = f"The model file {onnx} keeps weights in {name!r}"
    if name in ("", ".", "..") or any(character in name for character in "/\\:\0"):
        raise BundleError(f"{refused}, which is not the name of a file beside it", "Do not use this file.")
    path = onnx.with_name(name)
    try:
        inside = path.resolve(strict=True).parent == onnx.parent.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise BundleError(f"{refused}, which is not there", "Copy all files of the bundle.") from error
    if not inside or not path.is_file():
        raise BundleError(f"{refused}, which is no plain file in its folder", "Do not use this file.")


def _locations(content: _Buffer) -> Iterator[str]:
    """The value of every `location` in the `external_data` of any tensor of a model."""
    unread: list[tuple[str, int, int, int]] = [("Model", 0, len(content), 0)]
    while unread:
        message, start, end, depth = unread.pop()
        if depth > _DEEPEST:
            raise _GarbledError(f"it is nested more than {_DEEPEST} deep")
        nested = _NESTED[message]
        if message == "Entry":
            entry = {field: content[begin:stop] for field, begin, stop in _fields(content, start, end)}
            if entry.get(_KEY) == b"location":
                try:
                    yield entry.get(_VALUE, b"").decode("utf-8")
                except UnicodeDecodeError as error:
                    raise _GarbledError("the name of a file of weights is no text") from error
            continue
        for field, begin, stop in _fields(content, start, end):
            if field in nested:
                unread.append((nested[field], begin, stop, depth + 1))


def _fields(content: _Buffer, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of each field of a message that has a length; the others are passed over."""
    place = start
    while place < end:
        tag, place = _varint(content, place, end)
        field, encoding = tag >> 3, tag & 7
        if not field or tag > _LARGEST_TAG:
            raise _GarbledError(f"there is no field where byte {place} is")
        if encoding == _LENGTH:
            length, place = _varint(content, place, end)
            if length > end - place:
                raise _GarbledError(f"a field at byte {place} is longer than what holds it")
            yield field, place, place + length
            place += length
        elif encoding == _VARINT:
            _, place = _varint(content, place, end)
        elif encoding in (_FIXED32, _FIXED64):
            place += 4 if encoding == _FIXED32 else 8
        else:
            raise _GarbledError(f"a field at byte {place} has an encoding that ONNX does not use")
    if place > end:
        raise _GarbledError("it breaks off within a field")


def _varint(content: _Buffer, place: int, end: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and where it ends."""
    value = 0
    for count in range(min(end - place, _LONGEST_VARINT)):
        byte = content[place + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, place + count + 1
    raise _GarbledError(f"a number at byte {place} does not end")
