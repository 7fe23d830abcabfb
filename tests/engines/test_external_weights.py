"""Weights outside of an ONNX file: found wherever ONNX lets them be, and held to the bundle's hashes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from tiny_models import tiny_bundle, tiny_description, tiny_feeds, tiny_graph

from fgdd_engines.bundle.bundle import Bundle, load_bundle, write_bundle
from fgdd_engines.bundle.external_weights import external_files
from fgdd_engines.bundle.files import file_sha256
from fgdd_engines.factory import open_engine
from fgdd_fast.errors import BundleError


def outside(location: str, name: str = "weights") -> TensorProto:
    """A tensor whose content is in another file."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    return tensor


def model_with(location: str) -> onnx.ModelProto:
    """A model with one tensor whose content is in another file."""
    return helper.make_model(helper.make_graph([], "graph", [], [], [outside(location)]))


def places(message: Descriptor, above: tuple[Descriptor, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every place in ONNX's schema where a tensor can be, as fields' names; two graphs deep."""
    if message is TensorProto.DESCRIPTOR:
        yield ()
    elif above.count(message) < 2:
        for field in message.fields:
            if field.message_type is not None:
                for place in places(field.message_type, (*above, message)):
                    yield field.name, *place


PLACES = tuple(places(onnx.ModelProto.DESCRIPTOR))


def tensor_at(place: tuple[str, ...], location: str) -> onnx.ModelProto:
    """A model with a tensor at a place of `places`, whose content is in another file."""
    model: Any = onnx.ModelProto()
    message = model
    for name in place:
        field = getattr(message, name)
        message = field.add() if hasattr(field, "add") else field
    message.CopyFrom(outside(location))
    return model  # type: ignore[no-any-return]


def field_of(number: int, content: bytes) -> bytes:
    """A field with a length of less than 2**14, as protobuf writes it."""
    return bytes([number << 3 | 2, len(content) & 127 | 128, len(content) >> 7]) + content


def tensors(message: object) -> Iterator[TensorProto]:
    """Every tensor in a message, found by protobuf's own description of it."""
    if isinstance(message, TensorProto):
        yield message
    for _, value in message.ListFields():  # type: ignore[attr-defined]
        for part in value if hasattr(value, "__len__") else [value]:
            if hasattr(part, "ListFields"):
                yield from tensors(part)


def test_weights_are_found_wherever_a_tensor_can_be(tmp_path: Path) -> None:
    assert {place[-1] for place in PLACES} >= {"initializer", "t", "tensors", "values", "indices"}
    assert any(place.count("node") == 2 for place in PLACES)
    (tmp_path / "a").touch()
    for place in PLACES:
        (tmp_path / "model.onnx").write_bytes(tensor_at(place, "a").SerializeToString())
        assert external_files(tmp_path / "model.onnx") == ("a",), place


def test_what_onnx_itself_moves_out_is_found(tmp_path: Path) -> None:
    model, path = onnx.load_model_from_string(tiny_graph()), tmp_path / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)
    written = {file.name for file in tmp_path.iterdir()} - {"model.onnx"}
    assert len(written) > 1
    assert external_files(path) == tuple(sorted(written))


def test_a_name_counts_though_the_tensor_has_its_content(tmp_path: Path) -> None:
    """Readers differ in what they make of it."""
    tensor = outside("a")
    tensor.raw_data = bytes(16)
    tensor.data_location = TensorProto.DEFAULT
    model = model_with("a")
    model.graph.initializer[0].CopyFrom(tensor)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "a").touch()
    assert external_files(tmp_path / "model.onnx") == ("a",)


class TestPlaces:
    @pytest.mark.parametrize(
        "location",
        [
            "/etc/hostname",
            "../secret",
            "..",
            ".",
            "",
            "folder/weights",
            "./weights",
            "..\\secret",
            "C:weights",
            "C:\\weights",
            "\\\\server\\weights",
            "*/_ORT_MEM_ADDR_/*",
            "weights\0",
        ],
    )
    def test_a_name_that_leads_elsewhere_is_refused(self, tmp_path: Path, location: str) -> None:
        folder = tmp_path / "bundle"
        (folder / "folder").mkdir(parents=True)
        for file in (tmp_path / "secret", folder / "weights", folder / "folder" / "weights"):
            file.touch()
        path = folder / "model.onnx"
        path.write_bytes(model_with(location).SerializeToString())
        with pytest.raises(BundleError, match="is not the name of a file beside it"):
            external_files(path)

    @pytest.mark.parametrize(
        ("make", "problem"),
        [
            (lambda path: None, "'a', which is not there"),
            (lambda path: path.symlink_to(path), "'a', which is not there"),
            (lambda path: path.symlink_to(Path(__file__)), "'a', which is no plain file in its folder"),
            (Path.mkdir, "'a', which is no plain file"),
            (os.mkfifo, "'a', which is no plain file"),
        ],
        ids=["missing", "link to itself", "link elsewhere", "folder", "pipe"],
    )
    def test_what_is_no_file_beside_it_is_refused(
        self, tmp_path: Path, make: Callable[[Path], None], problem: str
    ) -> None:
        make(tmp_path / "a")
        (tmp_path / "model.onnx").write_bytes(model_with("a").SerializeToString())
        with pytest.raises(BundleError, match=problem):
            external_files(tmp_path / "model.onnx")

    def test_a_folder_that_is_a_link_serves(self, tmp_path: Path) -> None:
        real, link = tmp_path / "real", tmp_path / "link"
        real.mkdir()
        (real / "a").touch()
        (real / "model.onnx").write_bytes(model_with("a").SerializeToString())
        link.symlink_to(real)
        assert external_files(link / "model.onnx") == ("a",)


class TestGarbled:
    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"\x00\x00", "no field where byte"),  # field 0
            (b"\x3a", "a number at byte 1 does not end"),  # a graph without a length
            (b"\x3a\x05abc", "longer than what holds it"),
            (b"\x3b", "an encoding that ONNX does not use"),  # the begin of a group
            (b"\x08" + b"\xff" * 11, "a number at byte 1 does not end"),
            (b"\x09abc", "breaks off within a field"),  # 8 bytes, of which 3 are there
            (b"\xff\xff\xff\xff\xff\x0f\x00", "no field where byte"),  # a number above all tags
        ],
    )
    def test_it_is_refused(self, tmp_path: Path, content: bytes, problem: str) -> None:
        (tmp_path / "model.onnx").write_bytes(content)
        with pytest.raises(BundleError, match=f"is no ONNX model: .*{problem}"):
            external_files(tmp_path / "model.onnx")

    def test_a_name_that_is_no_text_is_refused(self, tmp_path: Path) -> None:
        model = model_with("weights").SerializeToString()
        (tmp_path / "model.onnx").write_bytes(model.replace(b"weights", b"\xff\xfe\xfd\xfc\xfb\xfa\xf9"))
        with pytest.raises(BundleError, match="no text"):
            external_files(tmp_path / "model.onnx")

    def test_depth_has_an_end(self, tmp_path: Path) -> None:
        body = b""
        for _ in range(40):
            for field in (6, 5, 1):  # the graph of an attribute of a node of a graph
                body = field_of(field, body)
        (tmp_path / "model.onnx").write_bytes(field_of(7, body))
        with pytest.raises(BundleError, match="nested more than 100 deep"):
            external_files(tmp_path / "model.onnx")

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="cannot be read: No such file"):
            external_files(tmp_path / "model.onnx")

    @given(st.data())
    def test_damaged_models(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """Cut short, and with bytes changed."""
        whole = bytearray(tensor_at(max(PLACES, key=len), "b").SerializeToString())
        for _ in range(data.draw(st.integers(0, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        content = bytes(whole[: data.draw(st.integers(0, len(whole)))])
        self.check_refused_or_harmless(tmp_path_factory.mktemp("model") / "model.onnx", content)

    def check_refused_or_harmless(self, path: Path, content: bytes) -> None:
        """Whatever protobuf's parser finds a file name in is refused: there is no such file."""
        path.write_bytes(content)
        try:
            names = external_files(path)
        except BundleError:
            return
        assert names == ()
        parsed = onnx.ModelProto()
        try:
            parsed.ParseFromString(content)
        except Exception:  # protobuf's own errors, whose type differs between its versions
            return
        assert not any(entry.key == "location" for one in tensors(parsed) for entry in one.external_data)


class TestBundles:
    @pytest.fixture
    def moved_out(self, tmp_path: Path) -> Bundle:
        """The tiny classifier with its weights beside its ONNX file."""
        model = onnx.load_model_from_string(tiny_graph())
        external_data_helper.convert_model_to_external_data(
            model, location="tiny.weights", size_threshold=100
        )
        external_data_helper.write_external_data_tensors(model, str(tmp_path))
        files = {"weights": file_sha256(tmp_path / "tiny.weights")}
        description = replace(tiny_description(tmp_path / "tiny.onnx"), files=files)
        return write_bundle(description, model.SerializeToString())

    def test_attached_weights_are_loaded(self, moved_out: Bundle, tmp_path: Path) -> None:
        bundle = load_bundle(moved_out.onnx)
        assert bundle == moved_out
        (tmp_path / "whole").mkdir()
        feeds = tiny_feeds(2)
        results = []
        for one in (bundle, tiny_bundle(tmp_path / "whole")):
            with open_engine(one, device="cpu", axes={"batch": 2}, threads=1) as engine:
                results.append(engine.run(feeds))
        assert all(np.array_equal(results[0][name], results[1][name]) for name in results[0])

    def test_changed_weights_are_refused(self, moved_out: Bundle) -> None:
        weights = moved_out.beside("weights")
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        with pytest.raises(BundleError, match=r"tiny\.weights is not the one"):
            load_bundle(moved_out.onnx)

    def test_weights_without_a_hash_are_refused(self, moved_out: Bundle) -> None:
        data = json.loads(moved_out.sidecar.read_text())
        moved_out.sidecar.write_text(json.dumps({**data, "files": {"tokenizer.json": "0" * 64}}))
        with pytest.raises(BundleError, match=r"\['tiny\.weights'\], of which its sidecar has no hash"):
            load_bundle(moved_out.onnx)

    def test_weights_under_another_bundles_name_are_refused(self, moved_out: Bundle) -> None:
        for file in (moved_out.onnx, moved_out.sidecar):
            file.rename(file.with_stem("other"))
        with pytest.raises(BundleError, match=r"'tiny\.weights'.*no hash"):
            load_bundle(moved_out.onnx.with_stem("other"))

    def test_the_fingerprint_is_that_of_the_model_with_its_weights(self, moved_out: Bundle) -> None:
        other = replace(moved_out, files={"weights": "0" * 64})
        more = replace(moved_out, files={**moved_out.files, "tokenizer.json": "0" * 64})
        assert moved_out.fingerprint == more.fingerprint
        assert len({moved_out.fingerprint, other.fingerprint, moved_out.sha256}) == 3

    def test_the_fingerprint_of_a_model_without_weights_outside(self, tmp_path: Path) -> None:
        bundle = replace(tiny_bundle(tmp_path), files={"tokenizer.json": "0" * 64})
        assert bundle.fingerprint == bundle.sha256
