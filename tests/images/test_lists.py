"""Data sets that are lists of paths and classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner
from tiny_distillation import arguments, distill

import fgdd_fast
from fgdd_fast.cli.main import main
from fgdd_fast.errors import DataError
from fgdd_fast.images.dataset import scan
from fgdd_fast.output.manifest_reading import read_manifest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tiny.write_squares(tmp_path / "all", 3, ("red", "green"))
    return tmp_path


def found(root: Path, text: str, name: str = "photos.csv", **options: Sequence[str]) -> list[tuple[str, str]]:
    (root / name.partition(":")[0]).write_text(text, encoding="utf-8")
    return [(image.source, image.class_name) for image in scan(root / name, **options).images]  # type: ignore


EXPECTED = [("all/red/00.png", "dark"), ("all/green/01.png", "light")]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("path,label\nall/green/01.png,light\nall/red/00.png,dark\n", "photos.csv"),
        ("\ufeffID;Image;Class\r\n1;./all/green/01.png;light\r\n\r\n2;all/red/00.png;dark\r\n", "photos.csv"),
        ("label\tfilename\nlight\tall/green/01.png\ndark\tall/red/00.png", "photos.tsv"),
        ('a,b,path\nlight,"all/green/01.png",x\ndark,all/red/00.png,x\n', "photos.csv:b,a"),
        ("all/green/01.png light\n\nall/red/00.png dark\n", "photos.txt"),
        ("all/green/01.png\tlight\n{root}/all/red/00.png  dark\n", "photos.lst"),
    ],
)
def test_a_list_names_images_and_classes(root: Path, text: str, name: str) -> None:
    assert found(root, text.replace("{root}", str(root)), name) == EXPECTED
    opened = scan(root / name)
    assert opened.classes == ("dark", "light")
    assert (opened.root, opened.given) == (root, root / name)
    assert [image.path.is_file() for image in opened.images] == [True, True]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("../x.png,dark", r"line 3: '\.\./x\.png' leads out"),
        ("/etc/passwd,dark", "line 3: '/etc/passwd' is outside"),
        ("all/red/09.png,dark", r"line 3: 'all/red/09\.png' is no file"),
        ("all/red,dark", "line 3: 'all/red' is no file"),
        ("all/red/00.png", "line 3: no class"),
        (",dark", "line 3: no path"),
        ("all/red/00.png,../../x", "line 3: .* cannot name a class"),
        ("all/red/00.png,.git", "line 3: .* cannot name a class"),
        (f"all/red/00.png,{'x' * 300}", "line 3: .* more than 255 bytes"),
        ("all/green/01.png,dark", "line 3: the image of line 2 again"),
    ],
)
def test_bad_lines_are_named_by_their_numbers(root: Path, line: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        found(root, f"path,label\nall/green/01.png,light\n{line}\n")


@pytest.mark.parametrize(
    ("text", "name", "problem"),
    [
        ("all/green/01.png,light\n", "photos.csv", "has no columns of paths and of classes"),
        ("path,label\n", "photos.csv", "names no image"),
        ("path,label\nx,y\n", "photos.csv:path,breed", "has no columns"),
        ("path,label\nx,y\n", "photos.csv:path", "does not name two columns"),
        ("light", "photos.txt", "line 1: no path"),
        (f"path,label,{'x' * 200_000}\n", "photos.csv", "line 1: field larger"),
        (f'path,label,"\n{"x" * 200_000}"\n', "photos.csv", "line 2: field larger"),
    ],
)
def test_a_list_of_another_form_is_refused(root: Path, text: str, name: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        found(root, text, name)


def test_lines_are_left_out_and_what_is_no_image_is_listed(root: Path) -> None:
    (root / "all" / "notes.md").write_text("notes")
    (root / "all" / "1.heic").write_bytes(b"")
    text = "path,label\nall/green/01.png,light\nall/red/00.png,dark\nall/notes.md,dark\nall/1.heic,dark\n"
    assert found(root, text, ignore=("red",)) == EXPECTED[1:]
    opened = scan(root / "photos.csv")
    assert opened.aside == ("all/notes.md",)
    assert [(item.source, "cannot be read" in item.reason) for item in opened.skipped] == [
        ("all/1.heic", True)
    ]


def test_what_was_distilled_from_a_list_is_checked_made_again_and_shown(workplace: Path) -> None:
    """The same images under the same paths and classes give the same mosaics as the folder does."""
    data = workplace / "data"
    rows = [f"{file.relative_to(data)},{file.parent.name}" for file in sorted(data.rglob("*.png"))]
    (data / "photos.csv").write_text("\n".join(["path,label", *reversed(rows)]))
    assert distill(workplace, "by-folder").exit_code == 0
    listed = str(data / "photos.csv")
    words = arguments(workplace, "data/by-list")
    words[words.index(str(data))] = listed
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    out = data / "by-list"
    assert read_manifest(out).images == read_manifest(workplace / "by-folder").images
    for words in (
        ("verify", str(out), listed),
        ("distill", listed, str(workplace / "again"), "--no-report", "--from-manifest", str(out)),
        ("report", str(out), listed),
        ("check", listed, "--validation", listed),
    ):
        ran = CliRunner().invoke(main, words)
        assert ran.exit_code == 0, (words, ran.output)
    assert "source images were not" not in (out / "report.html").read_text()
    with pytest.raises(fgdd_fast.FgddError, match="lie one inside the other"):
        fgdd_fast.distill(listed, data, teacher="t.onnx", ipc=1)
