"""Runs of the accuracy benchmark: what is finished stays, and the table tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner, Result

pytest.importorskip("torch")

from benchmarks.accuracy import __main__ as accuracy
from benchmarks.accuracy import table as accuracy_table
from benchmarks.accuracy.results import SetKey, read_results
from benchmarks.accuracy.rows import choose_rows, name_of
from benchmarks.accuracy.sets import MosaicSet
from fgdd_fast.output.distilled import open_distilled
from fgdd_fast.output.mosaic import arrange

RULE = "quantile:0.5"
RULES_ASKED = (RULE, "median")  # which decide alike


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accuracy")
    tiny.write_squares(folder / "data", 6)
    tiny.write_squares(folder / "val", 4)
    tiny.foreground_bundle(folder)
    tiny.teacher_bundle(folder)
    return folder


def invoke(folder: Path, *options: str, command: click.Command = accuracy.main) -> Result:
    words = [str(folder / "data"), "--validation", str(folder / "val")]
    words += ["--teacher", str(folder / "tiny-teacher.onnx")]
    words += ["--foreground", str(folder / "tiny-foreground.onnx")]
    words += ["--results", str(folder / "results.jsonl"), "--store", str(folder / "store"), "--device", "cpu"]
    words += ["--size", "16", "--students", "convnet2-w4", "--ipc", "1,2", "--epochs", "4"]
    words += ["--label-epochs", "2", "--full-epochs", "2", "--selection-seeds", "2", "--training-seeds", "2"]
    return CliRunner().invoke(command, [*words, "--rules", ",".join(RULES_ASKED), "--workers", "1", *options])


@pytest.fixture(scope="module")
def finished(workplace: Path) -> Path:
    result = invoke(workplace, "--markdown", str(workplace / "table.md"))
    assert result.exit_code == 0, result.output
    return workplace


def test_a_grid_has_every_row_seed_and_student(finished: Path) -> None:
    results = read_results(finished / "results.jsonl")
    rows = {name_of(row) for row in choose_rows(["main"], RULES_ASKED)}
    assert set(results.sets) == {
        SetKey("full-data", 0, 0),
        *(SetKey(row, ipc, seed) for row in rows for ipc in (1, 2) for seed in (0, 1)),
    }
    for key in results.sets:
        for training in (0, 1):
            labels = "hard" if key.row == "full-data" else "soft"
            line = results.student(key, labels, "convnet2-w4", training)  # type: ignore[arg-type]
            assert line is not None
            assert line["top1"] == pytest.approx(results.correct(line).mean(), abs=1e-6)
    trained = {(key.set, key.view_seed) for key in results.students}
    assert len(trained) < len(results.sets)  # equal sets are one
    assert results.sets[SetKey("median", 2, 1)]["set"] == results.sets[SetKey(RULE, 2, 1)]["set"]
    assert [line["top1"] > 0.5 for line in results.teachers] == [True, True]
    assert str(finished) not in (finished / "results.jsonl").read_text()


def test_the_table_says_it_all(finished: Path) -> None:
    text = (finished / "table.md").read_text()
    for words in (
        "RDED (always-patch)",
        "random whole images",
        f"shuffled:{RULE}",
        "students of all real data",
    ):
        assert words in text
    assert "first 2 were labelled" in text
    assert "python -m benchmarks.accuracy data" in text
    cells = {line.count("|") for line in text.splitlines() if line.startswith("| RDED")}
    assert cells <= {line.count("|") for line in text.splitlines() if line.startswith("| ---")}


def test_the_table_is_made_of_the_file_alone(finished: Path, tmp_path: Path) -> None:
    file, figures = finished / "results.jsonl", tmp_path / "result.json"
    result = CliRunner().invoke(accuracy_table.main, [str(file), "--json", str(figures)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == (finished / "table.md").read_text().splitlines()
    data = json.loads(figures.read_text())
    assert {cell["row"] for cell in data["cells"]} >= {"full-data", RULE}
    assert data["runs"][0]["environment"]["cores"] >= 1


def test_what_is_finished_is_not_done_again_and_what_is_missing_comes_out_alike(
    finished: Path, tmp_path: Path
) -> None:
    before = (finished / "results.jsonl").read_text().splitlines()
    missing = [
        index
        for index, line in enumerate(before)
        if '"student"' in line and '"soft"' in line and '"seed": 1' in line
    ][2:4]
    kept = [line for index, line in enumerate(before) if index not in missing]
    path = tmp_path / "gone-on.jsonl"
    path.write_text("\n".join(kept) + '\n{"kind": "stud')
    result = invoke(finished, "--results", str(path))
    assert result.exit_code == 0, result.output
    after = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["kind"] for line in after[len(kept) :]] == ["run", "student", "student"]

    def stripped(line: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in line.items() if "seconds" not in name}

    wanted = [stripped(json.loads(before[index])) for index in missing]
    assert all(stripped(line) in wanted for line in after[-2:])


def test_workers_change_nothing(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl"
    rows = ("--rows", f"always-patch,{RULE}", "--no-full-data", "--ipc", "1", "--hard-seeds", "0")
    result = invoke(finished, "--results", str(path), "--workers", "2", *rows)
    assert result.exit_code == 0, result.output
    ours, theirs = read_results(path).students, read_results(finished / "results.jsonl").students
    assert ours
    assert {key: line["correct"] for key, line in ours.items()} == {
        key: theirs[key]["correct"] for key in ours
    }


def test_sets_are_those_that_distill_writes(finished: Path) -> None:
    from tiny_distillation import distill

    asked = {"ipc": 2, "factor": 1, "size": 16, "crops": 5, "pool": 300, "rule": RULE}
    result = distill(finished, "out", **asked, keep_foreground=0, store=finished / "store")
    assert result.exit_code == 0, result.output
    distilled = open_distilled(finished / "out")
    by_class = [[*()] for _ in distilled.manifest.classes]
    for image, label in zip(distilled.manifest.images, distilled.labels, strict=True):
        by_class[label].append(image.tiles)
    mosaics = tuple(arrange([tiles[0] for tiles in members], 2, 1) for members in by_class)
    found = MosaicSet(finished / "data", mosaics, 1)
    assert read_results(finished / "results.jsonl").sets[SetKey(RULE, 2, 0)]["set"] == found.fingerprint
    images, labels = found.read(16, "area")
    assert np.array_equal(images, distilled.read_all())
    assert np.array_equal(labels, distilled.labels)


def test_a_plan_does_nothing(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    result = invoke(finished, "--results", str(path), "--plan")
    assert result.exit_code == 0, result.output
    # 10 rows, 2 numbers of images, 2 seeds; each set with 2 students of soft labels and 1 of hard ones.
    assert "at most 40 sets" in " ".join(result.output.split())
    assert "120 students" in " ".join(result.output.split())
    assert not path.exists()


COMMITTED = Path(__file__).parents[2] / "benchmarks/results"


@pytest.mark.parametrize("name", ["accuracy-50", "accuracy-128", "accuracy-confirm"])
def test_committed_results_are_still_read_alike(name: str) -> None:
    result = CliRunner().invoke(accuracy_table.main, [str(COMMITTED / f"{name}.jsonl")])
    assert result.output == (COMMITTED / f"{name}.md").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--epochs", "5"], "other conditions"),
        (["--rows", "nonsense"], "no threshold rule"),
        (["--students", "nonsense"], "no student"),
        (["--ipc", "1,x"], "not one or more numbers"),
        (["--ipc", "50"], "too small"),
        (["--rows", f"{RULE}+kmeans"], "features"),
        (["--teacher", "nowhere.onnx"], "no bundle"),
        (["--validation", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_is_refused(finished: Path, options: list[str], words: str) -> None:
    before = [line for line in (finished / "results.jsonl").read_text().splitlines() if '"run"' not in line]
    result = invoke(finished, *options)
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), result.exception
    assert words in " ".join(result.output.split())
    after = [line for line in (finished / "results.jsonl").read_text().splitlines() if '"run"' not in line]
    assert after == before
