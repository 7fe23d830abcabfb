"""What a board needs in one file: packed with all that belongs to it, refused unless it is as it was."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_grounded
import tiny_pipeline as tiny
from click.testing import CliRunner, Result
from every_engine import write_variant

from fgdd_engines.bundle.bundle import load_bundle
from fgdd_fast.cli import main
from fgdd_fast.errors import BundleError
from fgdd_fast.output.manifest_reading import read_manifest
from fgdd_fast.packing.board import pack_bundles, unpack_bundles

STREAM = {"ipc": 1, "factor": 2, "size": 16, "crops": 3, "once": True, "device": "cpu"}
SETTINGS = "[stream]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in STREAM.items())


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words)])


def sealed(file: Path, *members: tuple[str | tarfile.TarInfo, bytes]) -> Path:
    """An archive of these, sealed as if it were whole."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name) if isinstance(name, str) else name
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    content = buffer.getvalue()
    file.write_bytes(content + hashlib.sha256(content).hexdigest().encode())
    return file


def listing(*names: str, **more: Any) -> tuple[str, bytes]:
    files = {name: hashlib.sha256(b"x").hexdigest() for name in names}
    return "CONTENTS", json.dumps({"format": 1, "files": files, "stream": {}, **more}).encode()


def test_a_board_streams_with_what_was_packed_for_it(workplace: Path) -> None:
    (workplace / "settings.toml").write_text(SETTINGS, encoding="utf-8")
    models = workplace / "tiny-foreground", workplace / "tiny-teacher.onnx"
    packed = run("bundle", "pack", *models, "-o", workplace / "a", "--settings", workplace / "settings.toml")
    assert packed.exit_code == 0, packed.output
    again = pack_bundles([*models[::-1], models[0]], workplace / "b", settings=STREAM)
    assert (workplace / "a").read_bytes() == (workplace / "b").read_bytes()
    assert again.sha256 in packed.output

    unpacked = run("bundle", "unpack", workplace / "a", workplace / "board")
    assert unpacked.exit_code == 0, unpacked.output
    for model in models:
        model.with_suffix(".onnx").unlink()
    streamed = run(
        "stream", workplace / "data", workplace / "out", "--config", workplace / "board/stream.toml"
    )
    assert streamed.exit_code == 0, streamed.output
    asked, names = read_manifest(workplace / "out"), ("tiny-foreground", "tiny-teacher")
    assert (asked.settings["crops"], *(model.name for model in asked.models.values())) == (3, *names)


def test_all_that_belongs_to_a_bundle_goes_along(tmp_path: Path) -> None:
    bundle = tiny_grounded.write_grounded_bundle(tmp_path, split=True)
    write_variant(replace(bundle, parts={}, files={}), "fp16")
    (tmp_path / "prompts.txt").write_text("cat red patch\n", encoding="utf-8")
    pack_bundles([bundle.onnx], tmp_path / "a", settings={"prompts": tmp_path / "prompts.txt"})
    unpacked = unpack_bundles(tmp_path / "a", tmp_path / "board")
    copied = load_bundle(tmp_path / "board" / bundle.onnx.name)
    assert copied.find_variant("fp16") is not None
    assert copied.part("segmenter").role == "segmenter"
    assert copied.file("tokenizer.json").exists()
    assert unpacked.settings is not None
    assert f'prompts = "{(tmp_path / "board/prompts").resolve()}"' in unpacked.settings.read_text()


def test_a_file_that_is_not_as_it_was_packed_is_refused(tmp_path: Path) -> None:
    pack_bundles([tiny.teacher_bundle(tmp_path).onnx], packed := tmp_path / "packed")
    whole = packed.read_bytes()
    for at in (0, 140, 600, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        for content in (changed, whole[:at], whole[:at] + b"0" + whole[at:]):
            packed.write_bytes(content)
            with pytest.raises(BundleError, match="torn, was changed"):
                unpack_bundles(packed, tmp_path / "board")
    assert not (tmp_path / "board").exists()


def test_what_does_not_belong_in_a_packed_file_is_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo("x")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    for members, said in [
        ([listing("../x"), ("../x", b"x")], "no plain file"),
        ([listing("/x"), ("/x", b"x")], "no plain file"),
        ([listing("x"), (link, b"")], "no plain file"),
        ([listing("x"), ("x", b"y")], "other files than it lists"),
        ([listing("x"), ("x", b"x"), ("x", b"x")], "File exists"),
        ([listing("x")], "other files than it lists"),
        ([listing(), ("x", b"x")], "other files than it lists"),
        ([("x", b"x")], "cannot be unpacked"),
        ([listing(format=2)], "format must be one of 1"),
        ([("CONTENTS", b"[" * 100_000)], "nested too deep"),
    ]:
        refused = run("bundle", "unpack", sealed(tmp_path / "made", *members), tmp_path / "board")
        assert (refused.exit_code, said in refused.output) == (1, True), refused.output
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_what_cannot_be_packed_is_said(workplace: Path) -> None:
    other = tiny.teacher_bundle(workplace, name="other").onnx
    teacher, file = workplace / "tiny-teacher.onnx", workplace / "settings.toml"
    (workplace / "full").mkdir()
    (workplace / "full/file").touch()
    os.mkfifo(workplace / "pipe")
    for text, words, said in [
        ("", [other], "[stream]"),
        ("[stream]\nevery = 0\n", [other], "0 is not in the range"),
        (SETTINGS, [other, teacher], "A stream has one teacher"),
        (SETTINGS, [workplace / "none.onnx"], "There is no bundle"),
        (SETTINGS, [teacher, "-o", teacher], "is one of the files to be packed"),
        (SETTINGS, [teacher, "-o", workplace / "none/a"], "cannot be written"),
        (SETTINGS, [teacher, "-o", workplace / "pipe"], "no plain file"),
    ]:
        file.write_text(text, encoding="utf-8")
        refused = run("bundle", "pack", "-o", workplace / "a", "--settings", file, *words)
        assert refused.exit_code, said
        assert said in refused.output
    pack_bundles([teacher], workplace / "a")
    assert "not empty" in run("bundle", "unpack", workplace / "a", workplace / "full").output
    assert "cannot be unpacked" in run("bundle", "unpack", workplace / "b", workplace / "new").output
