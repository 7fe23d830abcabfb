"""The output folder: whole or not at all, and never at the cost of someone's files."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fgdd_fast.errors import OutputError
from fgdd_fast.output.folder import HARMLESS, check_output, output_folder, write_image


def fill(folder: Path, content: bytes = b"pixels") -> None:
    """Write what a run writes."""
    write_image(folder, "cat", 0, content, "png")
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "tool": {"fgdd-fast": "0"}}))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(out: Path, data: Path | None, match: str, *, overwrite: bool = False) -> None:
    """OUT is refused before the long work, if there are data, and again when it is to be written."""
    if data is not None:
        with pytest.raises(OutputError, match=match):
            check_output(out, data, overwrite=overwrite)
    with pytest.raises(OutputError, match=match), output_folder(out, overwrite=overwrite):
        pytest.fail("the block must not run")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "cat" / "1.jpg").write_bytes(b"jpeg")
    return tmp_path / "data"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder in which nothing but OUT should be left."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.mark.parametrize("empty", [False, True])
def test_a_new_folder_appears_at_the_end(place: Path, data: Path, empty: bool) -> None:
    """Also where there is an empty one."""
    out = place / "a" / "b" / "out"
    if empty:
        out.mkdir(parents=True)
    check_output(out, data, overwrite=False)
    with output_folder(out, overwrite=False) as folder:
        assert folder.parent == out.parent
        fill(folder)
        assert not (out / "manifest.json").exists()
    assert set(tree(out)) == {"manifest.json", "images/cat/cat_00000.png"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), SystemExit(1)])
def test_a_failure_leaves_nothing_but_the_older_data_set(place: Path, error: BaseException) -> None:
    def run(*, overwrite: bool) -> None:
        with output_folder(place / "out", overwrite=overwrite) as folder:
            fill(folder, b"new")
            raise error

    with pytest.raises(type(error)):
        run(overwrite=False)
    assert list(place.iterdir()) == []
    with output_folder(place / "out", overwrite=False) as folder:
        fill(folder, b"old")
    before = tree(place)
    with pytest.raises(type(error)):
        run(overwrite=True)
    assert tree(place) == before


def test_overwrite_replaces_an_older_data_set_whole(place: Path, data: Path) -> None:
    out = place / "out"
    with output_folder(out, overwrite=False) as folder:
        fill(folder, b"old")
        write_image(folder, "dog", 0, b"old", "png")
    refused(out, data, "--overwrite")
    for name in (*HARMLESS, ".x.part"):  # of file managers, of `fgdd-fast sheet`, and of a killed report
        (out / name).touch()
    check_output(out, data, overwrite=True)
    with output_folder(out, overwrite=True) as folder:
        fill(folder, b"new")
        assert (out / "images/dog/dog_00000.png").read_bytes() == b"old"
    assert set(tree(out)) == {"manifest.json", "images/cat/cat_00000.png"}
    assert (out / "images/cat/cat_00000.png").read_bytes() == b"new"
    assert [path.name for path in place.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.tex": ""},
        {"manifest.json": '{"tool": {"fgdd-fast": "0"}}'},
        {"manifest.json": '{"tool": {"fgdd-fast": "0"}}', "images/a": "", "notes.txt": ""},
        {"manifest.json": '{"tool": {"fgdd-fast": "0"}}', "images/a": "", "sheet.png/thesis.tex": ""},
        {".DS_Store": ""},
        {"manifest.json": '{"manifest_version": 3, "name": "a browser extension"}', "images/icon.png": ""},
        {"manifest.json": "[1]", "images/a": ""},
        {"manifest.json": '{"tool": ["fgdd-fast"]}', "images/a": ""},
        {"manifest.json": '{"tool', "images/a": ""},
        {"manifest.json": "\xff", "images/a": ""},
    ],
)
def test_overwrite_never_touches_another_folder(place: Path, data: Path, files: dict[str, str]) -> None:
    out = place / "out"
    for name, text in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text, encoding="latin-1")
    before = tree(out)
    for overwrite in (False, True):
        refused(out, data, ".", overwrite=overwrite)
    assert tree(out) == before
    assert [path.name for path in place.iterdir()] == ["out"]


def test_a_folder_that_fills_up_meanwhile_is_not_replaced(place: Path) -> None:
    out = place / "out"

    def run() -> None:
        with output_folder(out, overwrite=False) as folder:
            fill(folder)
            out.mkdir()
            (out / "thesis.tex").touch()

    with pytest.raises(OutputError, match="not empty"):
        run()
    assert set(tree(out)) == {"thesis.tex"}
    assert [path.name for path in place.iterdir()] == ["out"]


def test_the_older_data_set_comes_back_when_the_new_one_cannot_take_its_place(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = place / "out"
    with output_folder(out, overwrite=False) as folder:
        fill(folder, b"old")
    before = tree(out)
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if ".partial-" in path.name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OutputError, match="Input/output error"), output_folder(out, overwrite=True) as folder:
        fill(folder, b"new")
    assert tree(out) == before
    assert [path.name for path in place.iterdir()] == ["out"]


@pytest.mark.parametrize("relation", ["same", "inside", "through a link", "around"])
def test_out_and_data_must_be_apart(data: Path, tmp_path: Path, relation: str) -> None:
    (tmp_path / "link").symlink_to(data)
    out = {
        "same": data,
        "inside": data / "cat" / "out",
        "through a link": tmp_path / "link" / "out",
        "around": data.parent,
    }[relation]
    with pytest.raises(OutputError, match="inside the other"):
        check_output(out, data, overwrite=True)


def test_out_beside_data_with_a_name_that_begins_alike_is_fine(data: Path) -> None:
    check_output(data.with_name("data-distilled"), data, overwrite=False)
    assert not data.with_name("data-distilled").exists(), "checking writes nothing"


def test_a_file_in_the_way(place: Path, data: Path) -> None:
    (place / "file").write_text("mine")
    for out in (place / "file", place / "file" / "out"):
        refused(out, data, r"file|[Nn]ot a directory", overwrite=True)
    assert (place / "file").read_text() == "mine"


def test_a_link_to_a_folder_is_followed(place: Path, data: Path) -> None:
    (place / "elsewhere").mkdir()
    (place / "out").symlink_to(place / "elsewhere" / "set")
    check_output(place / "out", data, overwrite=False)
    with output_folder(place / "out", overwrite=False) as folder:
        fill(folder)
    assert (place / "out").is_symlink()
    assert (place / "elsewhere" / "set" / "manifest.json").exists()


def test_a_loop_of_links(place: Path, data: Path) -> None:
    (place / "a").symlink_to(place / "b")
    (place / "b").symlink_to(place / "a")
    refused(place / "a", data, "leads nowhere|symbolic links")


def test_a_mount_point_is_refused_with_a_place_inside_it(data: Path) -> None:
    with pytest.raises(OutputError, match="/distilled") as caught, output_folder(Path("/"), overwrite=True):
        pytest.fail("the block must not run")
    assert "mount point" in caught.value.problem
    if Path("/dev/shm").is_mount():
        with pytest.raises(OutputError, match="mount point"):
            check_output(Path("/dev/shm"), data, overwrite=True)


def test_names_too_long(place: Path, data: Path) -> None:
    for out in (place / ("n" * 300), place / ("n" * 250), place / ("n" * 300) / "out"):
        refused(out, data, "Shorten")
    with pytest.raises(OutputError, match="Shorten"):
        write_image(place, "n" * 250, 0, b"", "png")


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", ".", "", "a\0b"])
def test_a_class_that_names_no_folder_writes_nothing_elsewhere(place: Path, name: str) -> None:
    """Streams have the names of classes from a teacher's sidecar, and from the candidates of other boards."""
    with pytest.raises(OutputError, match="cannot name a folder"):
        write_image(place / "out", name, 0, b"", "png")
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EROFS, "read-only"),
        (errno.EACCES, "may write"),
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
    ],
)
def test_a_refusal_of_the_system_comes_early_and_with_advice(
    place: Path, data: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def refuse(path: Path, *args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    refused(place / "new" / "out", data, advice)


@pytest.mark.parametrize(
    "name", ["two words", 'it\'s "quoted"', "🐱", os.fsdecode(b"caf\xe9"), "-rf", "%s{}"]
)
def test_any_name_of_a_class_or_of_out(place: Path, name: str) -> None:
    out = place / name
    with output_folder(out, overwrite=False) as folder:
        path = write_image(folder, name, 7, b"pixels", "jpg")
    assert path == f"images/{name}/{name}_00007.jpg"
    assert (out / path).read_bytes() == b"pixels"
    assert [os.fsencode(path.name) for path in place.iterdir()] == [os.fsencode(name)]


KILLED = """
import os, signal, sys
from pathlib import Path
from fgdd_fast.output.folder import output_folder, write_image
with output_folder(Path(sys.argv[1]), overwrite=True) as folder:
    write_image(folder, "cat", 0, b"pixels", "png")
    if sys.argv[2] == "between the renames":
        rename = Path.rename
        def rename_then_die(path, target):
            rename(path, target)
            os.kill(os.getpid(), signal.SIGKILL)
        Path.rename = rename_then_die
    else:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", ["in the block", "between the renames"])
def test_the_next_run_cleans_up_after_a_killed_one(place: Path, data: Path, moment: str) -> None:
    out = place / "out"
    with output_folder(out, overwrite=False) as folder:
        fill(folder, b"old")
    before = tree(out)
    killed = subprocess.run([sys.executable, "-c", KILLED, out, moment], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(place.iterdir())) == 2
    with pytest.raises(OutputError, match="--overwrite"):
        check_output(out, data, overwrite=False)  # finds the older data set in its place
    assert tree(out) == before
    assert [path.name for path in place.iterdir()] == ["out"]


def test_only_the_leftovers_of_gone_runs_of_this_out_are_removed(place: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    running = os.getppid()
    kept = [f".out.partial-{running}", ".out.partial-", ".out.partial-x", f".other.partial-{gone.pid}"]
    for name in (*kept, f".out.partial-{gone.pid}"):
        (place / name).mkdir()
    with output_folder(place / "out", overwrite=False) as folder:
        fill(folder)
    assert sorted(path.name for path in place.iterdir()) == sorted([*kept, "out"])
