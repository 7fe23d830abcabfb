"""Data sets that are no folders: how their images are named, and that they give the same bytes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner
from data_sets import as_parquet, as_samples, images_of, in_memory, packed_by_tar, write_tar
from tiny_distillation import arguments, assert_refused, contents, distill
from watched_progress import Watched

import fgdd_fast
from fgdd_fast.cli.main import main
from fgdd_fast.errors import DataError, ImageError, RemoteError
from fgdd_fast.images.dataset import locate, scan
from fgdd_fast.images.decode import read_file
from fgdd_fast.images.place import file_signature
from fgdd_fast.trust.verifying import verify

FORMS: dict[str, Callable[[Path], Path]] = {
    "tar": lambda data: packed_by_tar(data, data.with_name("tar")),
    "one-tar": lambda data: packed_by_tar(data, data.with_name("tar")) / "all.tar",
    "samples": lambda data: as_samples(data, data.with_name("samples")) / "train-*.tar",
    "parquet": lambda data: as_parquet(data, data.with_name("parquet")),
    "memory": in_memory,
    "memory-samples": lambda data: in_memory(as_samples(data, data.with_name("samples"))),
    "memory-parquet": lambda data: in_memory(as_parquet(data, data.with_name("parquet"))),
}


@pytest.fixture(autouse=True)
def empty_memory() -> Iterator[None]:
    yield
    import fsspec

    fsspec.filesystem("memory").store.clear()


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    if "parquet" in request.param:
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    if "memory" in request.param:
        pytest.importorskip("fsspec", reason="fsspec is not installed")
    return FORMS[request.param]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.write_squares(tmp_path / "data", 3)


def run(*words: object) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, (words, result.output)
    return result.output


def test_the_same_images_have_the_same_names_and_bytes(
    data: Path, form: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = form(data)
    found, expected = scan(given), scan(data)
    assert found.classes == expected.classes
    assert [image.source for image in found.images] == [image.source for image in expected.images]
    where, wanted = locate(given), images_of(data)
    for image in pickle.loads(pickle.dumps(found.images)):
        assert read_file(image.location).content == wanted[image.source]
        assert read_file(where(image.source)).content == wanted[image.source]
        assert file_signature(image.location)
        with pytest.raises(DataError, match="files on disk are needed"):
            _ = image.path
    assert len({str(image.location) for image in found.images}) == len(wanted)
    with pytest.raises(ImageError, match="cannot be read"):
        read_file(where("red/none.png"))
    scan(given, ignore=["red/*"])
    assert {image.class_name for image in scan(given, ignore=["red"]).images} == {"blue", "green"}


@pytest.mark.parametrize("form", ["tar", "samples", "parquet", "memory"], indirect=True)
def test_every_form_is_distilled_to_the_same_bytes(workplace: Path, form: Callable[[Path], Path]) -> None:
    data = workplace / "data"
    assert distill(workplace, "by-folder").exit_code == 0
    given = form(data)
    out = workplace / "out"
    words = [str(given) if word == str(data) else word for word in arguments(workplace)]
    data.rename(workplace / "away")
    run(*words, "--store", workplace / "another")
    assert contents(out) == contents(workplace / "by-folder")
    again = run("measure", given, *words[3:][words[3:].index("--factor") :], "--store", workplace / "another")
    assert "24 were known" in again
    run("report", out, given)
    assert "source images were not" not in (out / "report.html").read_text()


@pytest.mark.parametrize("form", ["tar", "memory-parquet"], indirect=True)
def test_the_commands_that_open_images_open_them_there(workplace: Path, form: Callable[[Path], Path]) -> None:
    data = workplace / "data"
    assert distill(workplace).exit_code == 0
    out, given = workplace / "out", form(data)
    checked = run("check", given, "--validation", given, "--json", "-")
    assert "same-bytes" in checked or "leak" in checked
    verified = verify(out, given)
    assert (verified.remade, verified.findings) == (12, ())
    run("distill", given, workplace / "again", "--no-report", "--from-manifest", out)
    assert contents(workplace / "again") == contents(out)
    model = workplace / "tiny-foreground.onnx"
    run("sheet", out, given, "-o", workplace / "sheet.png", "--foreground", model, "--device", "cpu")


def test_what_was_packed_is_data_again(workplace: Path) -> None:
    """The shards that `pack` writes name images as the folder of the distilled set does."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    assert distill(workplace).exit_code == 0
    expected = images_of(workplace / "out" / "images")
    for format in ("webdataset", "huggingface"):
        fgdd_fast.pack(workplace / "out", workplace / format, format=format)
        found = scan(workplace / format)
        assert {image.source: read_file(image.location).content for image in found.images} == expected


def test_classes_are_told_by_samples_or_by_folders(tmp_path: Path) -> None:
    image = next(iter(images_of(tiny.write_squares(tmp_path / "data", 1)).values()))
    write_tar(
        tmp_path / "tars" / "a.tar",
        {
            "a/1.png": image,
            "a/1.cls": b"red\n",
            "b.png": image,
            "b.json": b'{"label": "blue", "caption": "x"}',
            "./green/1.v2.png": image,
            "green/1.cls.txt": b"red",
            "green/.hidden.png": image,
            "green/notes.md": b"# notes",
            "green/without-suffix": image,
            "../up.png": image,
            "lost.png": image,
        },
    )
    found = scan(tmp_path / "tars")
    assert [(each.source, each.class_name) for each in found.images] == [
        ("blue/b.png", "blue"),
        ("green/1.v2.png", "green"),
        ("green/without-suffix", "green"),
        ("red/a/1.png", "red"),
    ]
    assert {each.source: each.reason for each in found.skipped} == {
        "../up.png": "its name leads out of the data set",
        "lost.png": "image outside every class folder",
    }
    assert found.aside == ("green/1.cls.txt", "green/notes.md")


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"a/1.png": b"", "./a/1.png": b""}, r"Two images of .* are named 'a/1\.png': .*a\.tar/512 and"),
        (
            {"1.png": b"", "1.cls": b"9", "2.png": b"", "2.cls": b"-1"},
            "2 images whose labels.*the label 9, and",
        ),
        ({"1.png": b"", "1.cls": b"../x"}, "'../x' cannot name a class"),
        ({"1.png": b"", "1.cls": b""}, "no class"),
        ({"notes.md": b"x"}, "no image with a class"),
        ({"1.png": b""}, "no image with a class in .*'1.png' is left out: image outside every"),
    ],
)
def test_members_that_cannot_be_are_named(tmp_path: Path, files: dict[str, bytes], problem: str) -> None:
    write_tar(tmp_path / "a.tar", files)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=problem):
        scan(tmp_path / "a.tar")


@pytest.mark.parametrize("kept", [100, 512, 700, -1024, -512])
def test_a_tar_that_breaks_off_is_refused(data: Path, kept: int) -> None:
    tar = FORMS["one-tar"](data)
    whole = tar.read_bytes().rstrip(b"\0")
    tar.write_bytes(whole[:kept] if kept > 0 else whole[: len(whole) // 512 * 512 + 512 + kept])
    with pytest.raises(DataError, match=r"The tar .*all\.tar is damaged"):
        scan(tar.parent)


def test_parts_of_a_split_and_kinds_are_not_mixed(data: Path) -> None:
    folder = as_samples(data, data.with_name("samples"))
    (folder / "validation-0.tar").write_bytes((folder / "train-000000.tar").read_bytes())
    with pytest.raises(DataError, match=r"several parts of a split: train, validation.*train\*\.tar"):
        scan(folder)
    (folder / "validation-0.tar").rename(folder / "train-1.parquet")
    with pytest.raises(DataError, match="holds tar and Parquet files"):
        scan(folder)
    for name in ("blue", "green"):
        (data / name).rename(folder / name)
    assert scan(folder).classes == ("blue", "green")  # a folder of class folders is what it was


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"label": [7] * 9},
            "9 images whose labels are no classes: '00.png': the label 7, and there are 3 classes",
        ),
        ({"label": [-1] * 9}, "the label -1"),
        ({"label": [None] * 9}, "no class"),
        ({"names": False, "image": ["1.png"] * 9}, "holds string, not the bytes of images"),
        ({"names": False, "label": [0] * 9}, r"Two images of .* are named '0/00\.png'"),
    ],
)
def test_rows_that_cannot_be_are_named(data: Path, options: dict[str, Any], problem: str) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    with pytest.raises(DataError, match=problem):
        scan(as_parquet(data, data.with_name("parquet"), **options))


def test_rows_without_names_or_bytes(data: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    file = data.with_name("rows.parquet")
    content = next(iter(images_of(data).values()))
    parquet.write_table(arrow.table({"img": [content, None, b""], "labels": ["cat", "cat", "dog"]}), file)
    images = scan(file).images
    assert [image.source for image in images] == [
        f"{name}/rows-0000-000{row}" for row, name in enumerate(("cat", "cat", "dog"))
    ]
    assert read_file(images[0].location).content == content
    with pytest.raises(ImageError, match="no bytes"):
        read_file(images[1].location)
    parquet.write_table(arrow.table({"img": [content]}), file)
    with pytest.raises(DataError, match="lacks a column of images or of labels: img"):
        scan(file)
    with pytest.raises(ImageError, match="no bytes"):
        read_file(images[2].location)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="is damaged"):
        scan(file)


def test_a_store_that_is_lost_in_mid_run_costs_nothing(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured stays, no image is left out for it, and the same run goes on."""
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    given, store = in_memory(workplace / "data"), fsspec.filesystem("memory")
    read, calls = type(store).cat_file, list[str]()

    def fail(self: Any, path: str, **options: Any) -> bytes:
        calls.append(path)
        if len(calls) > 12:
            raise TimeoutError("the network is down")
        return bytes(read(self, path, **options))

    options: dict[str, Any] = {
        "teacher": workplace / "tiny-teacher.onnx",
        "runtime": fgdd_fast.RuntimeOptions(device="cpu", threads=1),
        "size": 16,
        "store": workplace / "store",
    }
    with monkeypatch.context() as patch:
        patch.setattr(type(store), "cat_file", fail)
        with (
            fgdd_fast.open_pipeline(given, **options) as pipeline,
            pytest.raises(
                RemoteError, match=r"memory://bucket/train/.* the network is down.*run the same again"
            ),
        ):
            pipeline.measure()
    with fgdd_fast.open_pipeline(given, **options) as pipeline:
        measured = pipeline.measure(progress=Watched())
    assert (measured.measured + measured.reused, measured.skipped) == (24, ())
    assert measured.reused > 0


def test_addresses_that_cannot_be_read_are_refused(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    teacher = workplace / "tiny-teacher.onnx"
    for address, words in (
        ("memory://bucket/none", "There is nothing at memory://bucket/none"),
        ("nope://bucket/train", "nope://bucket cannot be opened"),
    ):
        refused = CliRunner().invoke(
            main, ["distill", address, str(workplace / "out"), "--teacher", str(teacher)]
        )
        assert_refused(refused, words)
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    result = CliRunner().invoke(main, ["check", "memory://elsewhere/train"])
    assert_refused(result, "pip install 'fgdd-fast[remote]'")
