"""`verify` finds what was changed, and `distill --from-manifest` makes the same set again."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner, Result
from tiny_distillation import assert_refused, contents, distill
from tiny_labels import label

from fgdd_fast import remake, verify
from fgdd_fast.cli import main
from fgdd_fast.errors import DataError
from fgdd_fast.output.folder import write_image
from fgdd_fast.output.hashes import read_hashes, write_hashes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    tiny.write_squares(folder / "data", 8)
    tiny.foreground_bundle(folder)
    tiny.teacher_bundle(folder)
    for name in ("png", "jpg"):
        result = distill(folder, name, ipc=2, format=name)
        assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("name", ["png", "jpg"])
def test_what_was_distilled_is_sound_and_made_again_byte_for_byte(folder: Path, name: str) -> None:
    verified = verify(folder / name, folder / "data", threads=2)
    assert verified.sound
    assert (verified.images, verified.remade, verified.rounded, verified.hashed) == (6, 24, 0, 6)
    remake(folder / name, folder / "data", folder / "again")
    assert contents(folder / "again") == contents(folder / name)
    manifest = folder / name / "manifest.json"
    result = run("distill", folder / "data", folder / "other", "--from-manifest", manifest, "--threads", 2)
    assert result.exit_code == 0, result.output
    assert contents(folder / "other") == contents(folder / name)


def paint(path: Path) -> None:
    pixels = cv2.imread(str(path))
    assert pixels is not None
    pixels[0, 0] ^= 1
    cv2.imwrite(str(path), pixels)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda folder: paint(image(folder)), "tile", "tile 0 is not what 'blue/"),
        (lambda folder: image(folder).write_bytes(b"damage"), "image", "not an image"),
        (lambda folder: shutil.rmtree(folder / "data/red"), "source", "can no longer be read"),
        (lambda folder: [paint(file) for file in (folder / "data/red").iterdir()], "source", "changed since"),
    ],
)
def test_what_was_changed_is_found(
    folder: Path, change: Callable[[Path], object], code: str, words: str
) -> None:
    (folder / "png/SHA256SUMS").unlink()  # as sets of 0.1.0 have none
    change(folder)
    verified = verify(folder / "png", folder / "data")
    assert {finding.code for finding in verified.findings} == {code}
    assert words in verified.findings[0].problem
    result = run("verify", folder / "png", folder / "data", "--json", folder / "found.json")
    assert_refused(result, "wrong with", "--from-manifest")
    assert json.loads((folder / "found.json").read_text())["findings"] == [
        vars(finding) for finding in verified.findings
    ]


def image(folder: Path) -> Path:
    return folder / "png/images/blue/blue_00000.png"


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda folder: paint(image(folder)), "image", "is not the one that SHA256SUMS was written for"),
        (
            lambda folder: edit(folder, lambda data: data["thresholds"].update(blue=0.5)),
            "manifest",
            "is not the one that SHA256SUMS was written for",
        ),
        (
            lambda folder: (folder / "png/SHA256SUMS").write_text("# nothing\n"),
            "manifest",
            "line 1 is no hash and name",
        ),
    ],
)
def test_hashes_tell_without_the_photographs(
    folder: Path, change: Callable[[Path], object], code: str, words: str
) -> None:
    change(folder)
    (finding,) = verify(folder / "png").findings
    assert finding.code == code
    assert words in finding.problem


@pytest.mark.parametrize("name", ["plain", "two words", "back\\slash", "two\nlines", "\udcff\r"])
def test_hashes_are_those_of_sha256sum(tmp_path: Path, name: str) -> None:
    file = write_image(tmp_path, name, 0, b"content", "png")
    (tmp_path / "manifest.json").write_text("{}")
    write_hashes(tmp_path)
    assert read_hashes(tmp_path) == {
        "manifest.json": hashlib.sha256(b"{}").hexdigest(),
        file: hashlib.sha256(b"content").hexdigest(),
    }
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / file).write_bytes(b"other")
    assert subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode == 1


def test_labels_have_hashes_of_the_images(folder: Path) -> None:
    result = label(folder / "png", epochs=0)
    assert result.exit_code == 0, result.output
    verified = verify(folder / "png")
    assert verified.sound
    assert (verified.images, verified.hashed, verified.remade) == (6, 6, 0)
    assert verified.label_files == 1
    stored = folder / "png/labels/images.safetensors"
    stored.write_bytes(stored.read_bytes()[:-1] + b"\1")
    (finding,) = verify(folder / "png").findings
    assert (finding.code, finding.file) == ("labels", "labels/images.safetensors")
    (folder / "png/SHA256SUMS").unlink()
    paint(image(folder))
    assert "not what was labelled" in verify(folder / "png").findings[0].problem


def test_another_version_of_opencv_may_round_otherwise(folder: Path) -> None:
    (folder / "png/SHA256SUMS").unlink()
    edit(folder, lambda data: data["tool"].update(opencv="1.0"))
    paint(image(folder))
    verified = verify(folder / "png", folder / "data")
    assert (verified.sound, verified.rounded) == (True, 1)


def edit(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    path = folder / "png/manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_box_outside_its_photograph_is_told(folder: Path) -> None:
    (folder / "png/SHA256SUMS").unlink()
    edit(folder, lambda data: data["images"][0]["tiles"][0].update(box=[9999, 0, 5, 5]))
    (finding,) = verify(folder / "png", folder / "data").findings
    assert "lies outside the image" in finding.problem
    with pytest.raises(DataError, match="lies outside the image"):
        remake(folder / "png", folder / "data", folder / "again")
    assert not (folder / "again").exists()


def test_nothing_else_can_be_asked_for_with_a_manifest(folder: Path) -> None:
    result = run("distill", folder / "data", folder / "other", "--from-manifest", folder / "png", "--ipc", 3)
    assert_refused(result, "--ipc cannot be used with --from-manifest")
    assert not (folder / "other").exists()


def test_a_missing_file_is_refused_as_by_everything_else(folder: Path) -> None:
    image(folder).unlink()
    assert_refused(run("verify", folder / "png"), "lacks 1 of its 6 images")
