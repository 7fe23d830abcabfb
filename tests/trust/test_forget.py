"""A withdrawn photograph leaves the set and the store, and the next in rank takes its place."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner, Result
from tiny_distillation import assert_refused, contents, distill
from tiny_labels import label

from fgdd_fast import forget, verify
from fgdd_fast.cli import main
from fgdd_fast.errors import SettingsError
from fgdd_fast.measurement.store import FILE_NAME
from fgdd_fast.runtime.batches import Batches
from fgdd_fast.runtime.choose import RuntimeOptions

RUNTIME = RuntimeOptions(device="cpu", threads=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.write_squares(tmp_path / "data", 8)
    tiny.foreground_bundle(tmp_path)
    tiny.teacher_bundle(tmp_path)
    result = distill(tmp_path, ipc=1)
    assert result.exit_code == 0, result.output
    return tmp_path


def sources(out: Path) -> list[str]:
    data = json.loads((out / "manifest.json").read_text())
    return [tile["source"] for image in data["images"] for tile in image["tiles"]]


def named(folder: Path) -> dict[str, object]:
    foreground = str(folder / "tiny-foreground.onnx")
    return {
        "data": folder / "data",
        "teacher": folder / "tiny-teacher.onnx",
        "foreground": foreground,
        "store": folder / "store",
    }


def test_the_set_is_as_if_the_photograph_and_its_copies_had_never_been_there(folder: Path) -> None:
    out, data = folder / "out", folder / "data"
    chosen = sources(out)[0]
    copy = data / "blue" / "copy.png"
    shutil.copy(data / chosen, copy)
    digest = hashlib.sha256(copy.read_bytes()).digest()
    gone = forget(out, [chosen], runtime=RUNTIME, **named(folder))  # type: ignore[arg-type]
    assert chosen not in sources(out)
    assert "blue/copy.png" not in sources(out)
    assert (gone.tiles, gone.stored, gone.labels) == (1, 1, False)
    assert chosen in gone.remaining
    assert verify(out, data).sound
    (data / chosen).unlink()
    copy.unlink()
    result = distill(folder, "never", ipc=1)
    assert result.exit_code == 0, result.output
    assert contents(folder / "never") == contents(out)
    stored = (folder / "store" / FILE_NAME).read_bytes()
    assert digest not in stored


def test_one_that_is_gone_from_data_is_known_by_the_manifest(folder: Path) -> None:
    out = folder / "out"
    label(out, epochs=0)
    chosen = sources(out)[0]
    (folder / "data" / chosen).unlink()
    options = [word for name, value in named(folder).items() for word in (f"--{name}", str(value))]
    result = run("forget", str(out), chosen, *options, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "out: 1; images taken out of the store: 1" in result.output
    assert "Its labels are gone" in result.output
    assert "Still in" not in result.output
    assert not (out / "labels").exists()


def run(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_what_nobody_knows_and_another_teacher_are_refused(folder: Path) -> None:
    out = folder / "out"
    before = contents(out)
    with pytest.raises(SettingsError, match="neither in the manifest nor in"):
        forget(out, ["blue/none.png"], runtime=RUNTIME, **named(folder))  # type: ignore[arg-type]
    tiny.teacher_bundle(folder, name="other", classes=("red", "green", "blue"))
    given = {**named(folder), "teacher": folder / "other.onnx"}
    edit = json.loads((out / "manifest.json").read_text())
    edit["models"]["teacher"]["sha256"] = "0" * 64
    (out / "manifest.json").write_text(json.dumps(edit))
    before = contents(out)
    with pytest.raises(SettingsError, match="teacher other is not the one"):
        forget(out, sources(out)[:1], runtime=RUNTIME, **given)  # type: ignore[arg-type]
    assert contents(out) == before
    assert_refused(run("forget", str(out), "x"), "Missing option")


def test_a_copy_that_gives_no_tile_is_forgotten_too(folder: Path) -> None:
    out, data = folder / "out", folder / "data"
    other = next(
        f"blue/{file.name}"
        for file in sorted((data / "blue").iterdir())
        if f"blue/{file.name}" not in sources(out)
    )
    shutil.copy(data / other, data / "blue" / "zz-copy.png")
    gone = forget(out, [other], runtime=RUNTIME, **named(folder))  # type: ignore[arg-type]
    assert {other, "blue/zz-copy.png"} <= set(gone.sources)
    assert len(json.loads((out / "run.json").read_text())["classes"]["blue"]["occupancies"]) == 7
    assert "zz-copy" not in (out / "run.json").read_text()


def test_batches_of_their_own_for_each_network_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several = Batches(images=2, asked=1, scored=1, labelled=1)
    monkeypatch.setattr("fgdd_fast.runtime.batches.PROCESSOR", several)
    out = folder / "out"
    assert distill(folder, "out", "--overwrite", batch="auto").exit_code == 0
    assert json.loads((out / "manifest.json").read_text())["settings"]["foreground_batch"] == 2
    chosen = sources(out)[0]
    forget(out, [chosen], runtime=RUNTIME, **named(folder))  # type: ignore[arg-type]
    assert chosen not in sources(out)
    assert json.loads((out / "manifest.json").read_text())["settings"]["foreground_batch"] == 2
