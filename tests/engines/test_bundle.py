"""Bundles: written whole, read back the same, and refused when anything about them is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_description

from fgdd_engines.bundle import files as files_module
from fgdd_engines.bundle.bundle import Bundle, load_bundle, write_bundle
from fgdd_engines.bundle.files import write_file
from fgdd_fast.errors import BundleError


def named(producer: bytes) -> bytes:
    """The shortest of ONNX models: nothing but its producer's name."""
    return bytes([2 << 3 | 2, len(producer)]) + producer


MODEL = named(b"the serialised graph")


@pytest.fixture
def written(tmp_path: Path) -> Bundle:
    return write_bundle(tiny_description(tmp_path / "tiny.onnx"), MODEL)


def edit_sidecar(bundle: Bundle, **changes: Any) -> None:
    data = json.loads(bundle.sidecar.read_text())
    bundle.sidecar.write_text(json.dumps({**data, **changes}))


@pytest.mark.parametrize("name", ["tiny.onnx", "tiny.json", "tiny"])
def test_round_trip(written: Bundle, name: str) -> None:
    assert load_bundle(written.onnx.with_name(name), "teacher") == written


@given(
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20
    ).filter(lambda name: not name.endswith((".onnx", ".json")) and name not in (".", ".."))
)
def test_any_file_name_serves(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("bundles")
    written = write_bundle(replace(tiny_description(folder / f"{name}.onnx"), name=name), MODEL)
    assert load_bundle(folder / name) == written


@pytest.mark.parametrize("name", ["n" * 250, os.fsdecode(b"caf\xe9/tiny")])
def test_a_name_that_the_file_system_takes(tmp_path: Path, name: str) -> None:
    written = write_bundle(tiny_description(tmp_path / f"{name}.onnx"), MODEL)
    assert load_bundle(written.sidecar) == written


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda path: path.write_bytes(MODEL + b"!"), "not the one that its sidecar describes"),
        (Path.unlink, "cannot be read: No such file"),
    ],
)
def test_a_changed_or_missing_model_is_refused(
    written: Bundle, change: Callable[[Path], object], problem: str
) -> None:
    change(written.onnx)
    with pytest.raises(BundleError, match=problem):
        load_bundle(written.onnx)


@pytest.mark.parametrize("name", ["nowhere", "tiny.onnx", ".", "/"])
def test_a_missing_sidecar_is_refused(written: Bundle, name: str) -> None:
    written.sidecar.unlink()
    with pytest.raises(BundleError, match=r"its sidecar .* is missing"):
        load_bundle(written.onnx.parent / name if name != "." else Path(name))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null", b"[]", b"3", b'{"format": 1}'])
def test_a_garbled_sidecar_is_refused(written: Bundle, content: bytes) -> None:
    written.sidecar.write_bytes(content)
    with pytest.raises(BundleError, match=r"The sidecar .*tiny\.json"):
        load_bundle(written.onnx)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"role": "student"},
        {"role": ["teacher"]},
        {"inputs": [{"name": "images"}]},
        {"inputs": [{"name": "images", "dtype": "uint8", "shape": 3}]},
        {"outputs": None},
        {"preprocessing": {"height": "tall", "width": 24, "description": "", "pad_value": None}},
        {"preprocessing": {"height": 24, "width": 24, "description": "", "pad_value": [0, 0]}},
        {"preprocessing": {"height": -1, "width": 24, "description": "", "pad_value": None}},
        {"preprocessing": {"height": 10**6, "width": 24, "description": "", "pad_value": None}},
        {"preprocessing": {"height": 24, "width": 24, "description": "", "pad_value": ["a", "b", "c"]}},
        {"preprocessing": {"height": float("inf"), "width": 24, "description": "", "pad_value": None}},
        {"classes": 3},
        {"source": 3},
        *({"files": {name: "0" * 64}} for name in ("../tiny", "/etc/passwd", "")),
    ],
)
def test_a_sidecar_with_a_wrong_field_is_refused(written: Bundle, changes: dict[str, Any]) -> None:
    edit_sidecar(written, **changes)
    with pytest.raises(BundleError, match=r"The sidecar .*tiny\.json"):
        load_bundle(written.onnx)


def test_a_sidecar_of_lists_within_lists_is_refused(written: Bundle) -> None:
    text = written.sidecar.read_text()
    for deep in (100, 100_000):
        nested = "[" * deep + "]" * deep
        written.sidecar.write_text(text.replace('"source": {', '"source": {"deep": ' + nested + ",", 1))
        with pytest.raises(BundleError, match=r"nested (too|more than 32) deep"):
            load_bundle(written.onnx)


def test_two_writers_at_once_leave_one_whole_bundle(tmp_path: Path) -> None:
    described = tiny_description(tmp_path / "tiny.onnx")

    def write(model: bytes) -> None:
        for _ in range(8):
            write_bundle(described, model)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, (MODEL, named(b"another graph"))))
    assert load_bundle(tmp_path / "tiny.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.json", "tiny.onnx"]


def test_a_sidecar_without_a_field_is_refused(written: Bundle) -> None:
    whole = json.loads(written.sidecar.read_text())
    for field in ("name", "role", "sha256", "inputs", "preprocessing", "classes", "licence"):
        written.sidecar.write_text(json.dumps({name: whole[name] for name in whole if name != field}))
        with pytest.raises(BundleError, match=field):
            load_bundle(written.onnx)


@pytest.mark.parametrize("failing_call", [1, 2])
def test_a_failed_write_leaves_the_old_bundle_whole(
    written: Bundle, monkeypatch: pytest.MonkeyPatch, failing_call: int
) -> None:
    calls = 0

    def full_disk(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing_call:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files_module.os, "fsync", full_disk)
    with pytest.raises(BundleError, match="cannot be written: No space left on device"):
        write_bundle(replace(written, name="newer"), named(b"a newer graph"))
    assert load_bundle(written.onnx) == written
    assert sorted(path.name for path in written.onnx.parent.iterdir()) == ["tiny.json", "tiny.onnx"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(tiny_description(tmp_path / "file" / "tiny.onnx"), MODEL)


def test_an_interrupted_file_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files_module.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_plain_file_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_file(pipe, b"content")
        assert os.read(reader, 99) == b"content"
        assert pipe.is_fifo()
    finally:
        os.close(reader)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for each time that something is hashed from now on."""
    times: list[int] = []
    sha256 = hashlib.sha256

    def count(*content: bytes) -> Any:
        times.append(1)
        return sha256(*content)

    monkeypatch.setattr(files_module.hashlib, "sha256", count)
    return times


def test_a_model_is_hashed_once_while_it_stays_as_it_is(
    written: Bundle, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "SETTLED", 0)
    for _ in range(3):
        load_bundle(written.onnx)
    assert len(hashed) == 1
    before = written.onnx.stat()
    time.sleep(0.05)  # longer than a tick of any kernel's clock
    written.onnx.write_bytes(MODEL.swapcase())
    os.utime(written.onnx, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BundleError, match="is not the one that its sidecar describes"):
        load_bundle(written.onnx)


def test_what_was_written_a_moment_ago_is_hashed_again(written: Bundle, hashed: list[int]) -> None:
    for _ in range(3):
        load_bundle(written.onnx)
    assert len(hashed) == 3


def test_what_a_killed_writer_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    described = tiny_description(tmp_path / "tiny.onnx")
    child = os.fork()
    if child == 0:
        Path.replace = lambda *_: os._exit(9)  # type: ignore[assignment,method-assign]
        write_bundle(described, MODEL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len([*tmp_path.rglob("*.part")]) == 2
    write_bundle(described, MODEL)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.onnx", "tiny.json"}
