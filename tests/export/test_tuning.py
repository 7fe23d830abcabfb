"""`tune` keeps what is faster and decides alike on the user's photographs, and `auto` uses that."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner, Result
from tiny_convolutions import convolutional_teacher
from tiny_distillation import assert_refused, distill

import fgdd_fast
from fgdd_engines.bundle.bundle import Bundle, load_bundle, write_bundle
from fgdd_engines.probing.probes import Probe
from fgdd_export.precision import tuning
from fgdd_fast.cli import main
from fgdd_fast.models.network import Runtime
from fgdd_fast.output.manifest_reading import read_manifest
from fgdd_fast.runtime import choose, parity
from fgdd_fast.runtime.cached import list_cached, prune_cache
from fgdd_fast.runtime.choose import choose_runtime
from fgdd_fast.runtime.parity import Comparison
from fgdd_fast.runtime.sample_images import SampleImage
from fgdd_fast.runtime.trials import Trial

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
pytest.importorskip("openvino", reason="OpenVINO is not installed")

INT8 = {"precisions": ("int8",), "foreground": None}


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A teacher that can be quantised, photographs in `data`, and a machine on which int8 is the fastest."""
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Comparison, "race", lambda _, way, batch: {"int8": 9.0}.get(way.precision, 1.5))
    tiny.write_squares(tmp_path / "data", 8)
    return convolutional_teacher(tmp_path)


def tune(*words: object) -> Result:
    return CliRunner().invoke(main, ["tune", *map(str, words)], env={"COLUMNS": "160"})


def chosen(teacher: Bundle) -> str:
    """How `auto` runs the teacher, and whether a record of tuning said so."""
    choice = choose_runtime(teacher, "auto", "auto", 1)
    return f"{choice.runtime.precision}{', tuned' if 'tuned on 4 images of data' in choice.reason else ''}"


def disagreeing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever int8 decides is wrong from now on."""
    tried = tuning.try_one

    def wrong(comparison: Comparison, way: Runtime, batch: int, best: float) -> Trial | None:
        trial = tried(comparison, way, batch, best)
        if trial is None or way.precision != "int8":
            return trial
        return replace(trial, figures={**trial.figures, "same_class": -0.5, "mean_regret": 99.0})

    monkeypatch.setattr(tuning, "try_one", wrong)
    monkeypatch.setattr("fgdd_export.precision.sensitive_nodes.EVALUATIONS", 2)


def test_what_agrees_is_kept_shown_and_used_until_it_is_reset(teacher: Bundle) -> None:
    bare = {path.name for path in teacher.onnx.parent.iterdir()}
    named = ("--teacher", teacher.onnx, "--foreground", "none")
    done = tune("data", *named, "--images", 4, "--json", "found.json")
    assert done.exit_code == 0, done.output
    found = json.loads(Path("found.json").read_text(encoding="utf-8"))
    rows = {(row["device"], row["precision"]): row for row in found["rows"]}
    assert rows["cpu", "fp32"]["speed"] == 1
    assert rows["cpu", "fp32"]["figures"]["same_class"] == 1
    int8 = rows["openvino", "int8"]
    assert (int8["calibrated_on"], int8["shortfalls"], int8["kept"]) == ("4 of data", [], True)
    assert [row["used"] for row in found["rows"]].count(True) == 1
    assert 0 < found["mirrored"]["teacher"]["same_class"] <= 1
    assert "100% of classes" in done.output
    assert "used" in done.output
    assert chosen(teacher) == "int8, tuned"
    variant = teacher.find_variant("int8-u8")
    assert variant is not None
    assert variant.source["tuned_on"] == "data"
    assert variant.parity["images"] == 4
    assert teacher.find_variant("int8") is None  # which is for TensorRT
    assert [item.name.split(".")[0] for item in list_cached() if item.kind == "tuning"] == ["teacher"]
    reset = tune("--reset", *named)
    assert "teacher: 1 records and 1 variants removed" in reset.output
    assert {path.name for path in teacher.onnx.parent.iterdir()} - bare == {"cache", "found.json"}
    assert not any(item.kind == "tuning" for item in list_cached())


def test_a_record_of_another_graph_machine_or_runtime_is_not_believed(
    teacher: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "comparison_images", lambda _: ())
    monkeypatch.setattr(choose, "try_all", lambda *_: [Trial("cpu", "fp32", 1.0, (), {})])
    fgdd_fast.tune("data", teacher=teacher.onnx, images=4, **INT8)
    assert chosen(teacher) == "int8, tuned"
    with monkeypatch.context() as later:
        newer = choose.probe
        later.setattr(choose, "probe", lambda device: replace(newer(device), detail="ONNX Runtime 9.9"))
        assert chosen(teacher) == "fp32"
    with monkeypatch.context() as elsewhere:
        here = choose.read_machine()
        elsewhere.setattr(choose, "read_machine", lambda: replace(here, vector_units=("avx2",)))
        assert chosen(teacher) == "fp32"
    variant = teacher.find_variant("int8-u8")
    assert variant is not None
    own = variant.graph()
    write_bundle(variant, own + b"\x12\0")  # converted again, otherwise
    assert chosen(load_bundle(teacher.onnx)) == "fp32"
    write_bundle(variant, own)
    assert chosen(load_bundle(teacher.onnx)) == "int8, tuned"
    assert choose_runtime(teacher, "auto", "auto", 1, 5).runtime.precision == "fp32"  # another batch
    write_bundle(teacher, teacher.graph() + b"\x12\0")
    variant.sidecar.unlink()  # which is refused by itself
    assert chosen(load_bundle(teacher.onnx)) == "fp32"
    write_bundle(teacher, teacher.graph()[:-2])
    write_bundle(variant, own)
    (record,) = (item.paths[0] for item in list_cached() if item.kind == "tuning")
    record.write_text('{"trials": 5}', encoding="utf-8")
    assert chosen(load_bundle(teacher.onnx)) == "fp32"
    assert len(prune_cache(kinds=["tuning"]).removed) == 1


def test_what_decides_otherwise_goes_and_what_the_user_made_stays(
    teacher: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    fgdd_fast.tune("data", teacher=teacher.onnx, images=4, **INT8)
    variant = teacher.find_variant("int8-u8")
    assert variant is not None
    disagreeing(monkeypatch)
    found = fgdd_fast.tune("data", teacher=teacher.onnx, images=4, **INT8)
    rejected = [row for row in found.rows if row.precision == "int8"]
    assert {row.device for row in rejected} >= {"cpu", "openvino"} or rejected[0].device == ""
    assert not any(row.kept or row.used for row in rejected)
    assert all(row.shortfalls for row in rejected)
    assert teacher.find_variant("int8-u8") is None
    assert chosen(teacher).endswith(", tuned")
    own = {name: value for name, value in variant.source.items() if name != "tuned_on"}
    write_bundle(replace(variant, source=own), teacher.graph())
    fgdd_fast.tune("data", teacher=teacher.onnx, images=4, **INT8)
    assert teacher.find_variant("int8-u8") is not None
    assert not chosen(teacher).startswith("int8")
    changed = {"same_class": -0.6, "mean_regret": 100.0}  # by mirroring the photographs, which is more
    monkeypatch.setattr(Comparison, "mirrored", lambda _: changed)
    fgdd_fast.tune("data", teacher=teacher.onnx, images=4, **INT8)
    assert chosen(teacher) == "int8, tuned"


def test_a_distilled_set_calibrates_beside_as_many_photographs(
    teacher: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.teacher_bundle(Path())
    assert distill(Path(), foreground=None, ipc=1, size=96).exit_code == 0
    used = {tile.source for image in read_manifest(Path("out")).images for tile in image.tiles}
    shown: list[SampleImage] = []

    class Watched(Comparison):
        def __init__(self, bundle: Bundle, images: Sequence[SampleImage], *more: Any) -> None:
            shown.extend(images)
            super().__init__(bundle, images, *more)

    monkeypatch.setattr(tuning, "Comparison", Watched)
    found = fgdd_fast.tune("data", teacher=teacher.onnx, calibrate="out", images=6, **INT8)
    assert {row.calibrated_on for row in found.rows if row.precision == "int8"} == {"3 of out", "3 of data"}
    kept = [row for row in found.rows if row.precision == "int8" and row.kept]
    assert len({row.calibrated_on for row in kept}) == 1
    assert len(shown) == found.images == 6
    assert not used & {image.image.source for image in shown}


def test_measurements_before_and_after_tuning_are_not_mixed(teacher: Bundle) -> None:
    def measure(out: str) -> int:
        """How many losses the store has when a teacher run by `auto` has measured everything."""
        options = {"device": "auto", "teacher": teacher.onnx, "size": 96, "foreground": None}
        assert distill(Path(), out, **options).exit_code == 0
        with closing(sqlite3.connect("store/measurements.sqlite3")) as store:
            return int(store.execute("SELECT count(*) FROM losses").fetchone()[0])

    before = measure("first")
    fgdd_fast.tune("data", teacher=teacher.onnx, images=4, **INT8)
    assert measure("tuned") == 2 * before
    assert measure("again") == 2 * before
    assert tune("--reset", "--teacher", teacher.onnx, "--foreground", "none").exit_code == 0
    assert measure("reset") == 2 * before


def test_on_a_gpu_half_precision_is_made_and_what_cannot_run_is_told(
    teacher: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "probe", lambda name: Probe(name, name in ("cpu", "cuda"), f"{name} 1.0"))
    found = fgdd_fast.tune("data", teacher=teacher.onnx, precisions=["fp16"], foreground=None, images=4)
    row = next(row for row in found.rows if row.precision == "fp16")
    assert (row.device, row.kept, row.speed) == ("cuda", False, 0)
    assert "cannot run it" in row.shortfalls[0]
    assert teacher.find_variant("fp16") is None
    assert choose_runtime(teacher, "auto", "auto", 1).runtime.device == "cpu"


def test_a_network_without_anything_to_quantise_is_told(tmp_path: Path, teacher: Bundle) -> None:
    foreground = tiny.foreground_bundle(tmp_path)
    found = fgdd_fast.tune("data", foreground=foreground.onnx, precisions=["int8"], images=4)
    row = found.rows[-1]
    assert (row.network, row.device, row.kept) == ("tiny-foreground", "", False)
    assert "can be quantised" in row.shortfalls[0]


def test_a_race_is_the_median_of_turns(teacher: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    now = [0.0]
    ask = parity._Teacher.ask

    def slowly(self: Any, model: Any, shown: Any) -> Any:
        now[0] += 0.6 if "ONNX Runtime" in model.description else 0.1 * len(shown["labels"]) / 6
        return ask(self, model, shown)

    monkeypatch.setattr(parity, "_clock_of", lambda _: lambda: now[0])
    monkeypatch.setattr(parity._Teacher, "ask", slowly)
    images = tuning.separate_samples(fgdd_fast.open_data(teacher.onnx.parent / "data"), 3)[0]
    comparison = Comparison(teacher, images)
    assert comparison.race(Runtime("openvino", "fp32", 1), batch=2) == pytest.approx(6)


def test_bad_input_ends_in_words(teacher: Bundle) -> None:
    named = ("--teacher", teacher.onnx, "--foreground", "none")
    assert_refused(tune("data", "--foreground", "none"), "No network is named")
    assert_refused(tune("data", *named, "--precisions", "int8,int4"), "no lower precision 'int4'")
    assert_refused(tune(*named), "Missing argument 'DATA'")
    assert_refused(tune("nowhere", *named), "There is no folder")
    assert_refused(tune("data", "--foreground", teacher.onnx), "not a foreground model")
    assert_refused(tune("data", *named, "--calibrate", "data"), "manifest")
    for file in [*Path("data").rglob("*.png")][1:]:
        file.write_bytes(b"no picture")
    assert_refused(tune("data", *named), "1 images of data can be read, and 2 are needed at least")
    Path("data/plane").mkdir()
    Path("data/blue/00.png").rename("data/plane/00.png")
    assert_refused(tune("data", *named), "does not know 'plane'")
