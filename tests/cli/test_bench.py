"""`fgdd-fast bench` from end to end on tiny models, and what it refuses before the long work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_pipeline
import tiny_references as tiny
from click.testing import CliRunner, Result

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("PIL", reason="Pillow is not installed")
pytest.importorskip("jinja2", reason="Jinja is not installed")

from fgdd_bench.harness import opening, parity, session, timing
from fgdd_bench.machine import ceilings
from fgdd_bench.references import fair
from fgdd_fast.cli import main
from fgdd_fast.errors import EngineError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data, models and a cache of their own; small measurements of limits, stages and batches."""
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ceilings, "SIDE", 128)
    monkeypatch.setattr(timing, "FEWEST_CALLS", 1)
    monkeypatch.setattr(opening, "TRIALS", 1)
    monkeypatch.setattr(opening, "CANDIDATES", {"cpu": (2,)})
    tiny.squares(tmp_path, 5)
    tiny.saliency(tmp_path)
    tiny.teacher(tmp_path)
    return tmp_path


def run(place: Path, *words: str, data: bool = True) -> Result:
    """The command, in the place, on one thread."""
    common = ["--device", "cpu", "--threads", "1", "--size", "48", "--crops", "3"]
    models = {
        "--teacher": str(place / "convolutional-teacher.onnx"),
        "--foreground": str(place / "convolutional-foreground.onnx"),
    }
    named = [word for pair in models.items() if pair[0] not in words for word in pair]
    folder = [str(place / "data")] if data else []
    return CliRunner().invoke(main, ["bench", *folder, *common, *named, *words])


def test_everything_is_measured_and_written(place: Path) -> None:
    files = {kind: place / f"result.{kind}" for kind in ("json", "html", "markdown")}
    words = [word for kind, file in files.items() for word in (f"--{kind}", str(file))]
    asked = ["--stages", "all,teacher", "--against", "published,fair", "--repeats", "2", "--images", "12"]
    found = run(place, *asked, *words)
    assert found.exit_code == 0, found.output
    data = json.loads(files["json"].read_text())
    assert [path["path"] for path in data["paths"]] == ["teacher", "all"]
    assert data["unfinished"] == []
    assert data["data"]["name"] == "data"
    assert data["data"]["images"] == 12
    for path in data["paths"]:
        assert path["passed"], path["failures"]
        assert path["speedup"].keys() == {"published", "fair"}
        for name, one in path["implementations"].items():
            assert len(one["turns"]["seconds"]) == 2, name
            assert one["arithmetic"]
            assert one["stages"]
    teacher = data["paths"][0]["implementations"]
    assert teacher["ours"]["networks"]["teacher"]["samples_per_image"] == 4
    assert teacher["ours"]["networks"]["teacher"]["multiply_adds"] > 0
    assert (teacher["ours"]["batch"], teacher["fair"]["batch"], teacher["published"]["batch"]) == (1, 2, 1)
    assert data["paths"][1]["parity"]["fp32"]["figures"]["same_tiles"] == 1
    assert data["models"]["teacher"]["sha256"] == tiny.teacher(place).sha256
    for file in files.values():
        assert str(place) not in file.read_text()
    assert "| scoring |" in files["markdown"].read_text()
    assert "Measured on" in files["html"].read_text()
    assert "scoring" in found.stdout


def test_a_reference_that_decides_otherwise_fails_the_command(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = parity.compare

    def strict(*arguments: Any) -> Any:
        found = compare(*arguments)
        if arguments[0] == "teacher":
            found.figures["loss_rank_correlation"] = 0.5
        return found

    monkeypatch.setattr("fgdd_bench.harness.bench.compare", strict)
    file = place / "result.json"
    found = run(
        place, "--stages", "teacher,decode", "--against", "fair", "--repeats", "1", "--images", "6",
        "--json", str(file),
    )  # fmt: skip
    assert found.exit_code == 1
    assert "teacher: loss rank correlation against fair is 0.5" in found.stderr
    assert "Traceback" not in found.output
    decode, teacher = json.loads(file.read_text())["paths"]  # written whole all the same
    assert "speedup" in decode
    assert "speedup" not in teacher
    assert "no speed-up" in " ".join(found.stdout.split())


def test_finished_paths_are_kept_where_a_later_one_cannot_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = place / "result.json"
    open_fair = fair.open_reference

    def failing(path: Any, *arguments: Any) -> Any:
        if path == "teacher":
            raise EngineError("PyTorch cannot compile the teacher")
        return open_fair(path, *arguments)

    monkeypatch.setattr(fair, "open_reference", failing)
    found = run(
        place, "--stages", "decode,teacher", "--against", "fair", "--repeats", "1", "--images", "6",
        "--json", str(file),
    )  # fmt: skip
    assert found.exit_code == 1
    assert "Error: PyTorch cannot compile the teacher" in found.stderr
    data = json.loads(file.read_text())
    assert [path["path"] for path in data["paths"]] == ["decode"]
    assert data["unfinished"] == ["teacher"]


@pytest.mark.parametrize("option", [["--json"], ["--json", "-"]])
def test_a_result_is_printed(place: Path, option: list[str]) -> None:
    asked = ["--stages", "compose", "--against", "published", "--repeats", "1", "--images", "6"]
    found = run(place, *asked, *option)
    assert found.exit_code == 0, found.output
    assert [path["path"] for path in json.loads(found.stdout)["paths"]] == ["compose"]
    assert "compose" in found.stderr  # the table


def test_without_data_pictures_are_drawn_and_a_teacher_is_fitted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled: list[str] = []
    fitted: list[Path] = []

    def fit(data: Path, output: Path, **options: Any) -> Any:
        fitted.append(data)
        names = sorted(entry.name for entry in data.iterdir())
        return SimpleNamespace(bundle=tiny_pipeline.teacher_bundle(output.parent, classes=names[:3]))

    monkeypatch.setattr(session, "DRAWN_PER_CLASS", 2)
    monkeypatch.setattr(session, "pull_model", pulled.append)
    monkeypatch.setattr(session, "fit_teacher", fit)
    file = place / "result.json"
    common = ["bench", "--stages", "decode,compose", "--against", "published", "--repeats", "1"]
    found = CliRunner().invoke(main, [*common, "--images", "6", "--threads", "1", "--json", str(file)])
    assert found.exit_code == 0, found.output
    assert json.loads(file.read_text())["data"]["drawn"] is True
    assert (pulled, fitted) == ([], [])  # nothing that is not needed
    found = CliRunner().invoke(main, ["bench", "--stages", "teacher", "--images", "6", "--threads", "1"])
    assert found.exit_code == 1  # the fake teacher knows three of the classes
    assert "does not know" in found.stderr
    assert pulled == ["imagenet-efficientnet-lite0"]
    assert not fitted[0].exists()  # removed with everything else


REFUSED: list[tuple[list[str], str]] = [
    (["--stages", "decode,nothing"], "'nothing' is none of decode, foreground"),
    (["--against", "tensorflow"], "'tensorflow' is none of published, fair, compiled"),
    (["--repeats", "0"], "--repeats"),
    (["--foreground", "masks:nowhere"], "nothing to measure"),
    (["--foreground", "saliency-u2nett"], "saliency-u2netp"),
    (["--teacher", "nowhere.onnx"], "There is no bundle"),
    (["--size", "49", "--stages", "decode"], "equal tiles"),
    (["--device", "cpu", "--precision", "bf16"], "fp32"),
    (["--json", "missing/result.json"], "cannot be written"),
    (["--html", "."], "it is a folder"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_cannot_work_is_refused_at_once(
    place: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.setattr("fgdd_bench.harness.session.measure_path", None)  # never gets there
    monkeypatch.chdir(place)
    found = run(place, *words)
    assert found.exit_code in (1, 2)
    assert message in " ".join(found.stderr.split())
    assert isinstance(found.exception, SystemExit)


def test_a_folder_that_is_not_there(place: Path) -> None:
    found = run(place, str(place / "nowhere"), data=False)
    assert found.exit_code == 1
    assert "nowhere" in found.stderr


def test_a_teacher_is_asked_for_where_one_is_needed(place: Path) -> None:
    found = CliRunner().invoke(main, ["bench", str(place / "data"), "--stages", "teacher"])
    assert found.exit_code == 1
    assert "fgdd-fast teacher fit" in found.stderr


def test_grounded_sam2_needs_its_checkpoints(place: Path) -> None:
    pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    from tiny_grounded import write_grounded_bundle

    bundle = write_grounded_bundle(place)
    found = run(place, "--stages", "foreground", "--foreground", str(bundle.onnx))
    assert found.exit_code == 1
    assert "--detector" in found.stderr


def test_a_missing_extra_gives_the_install_line(place: Path) -> None:
    for package, words in (("torch", []), ("jinja2", ["--html", "x.html", "--against", "fair"])):
        script = (
            f"import sys\nsys.modules['{package}'] = None\n"
            "from fgdd_fast.cli import main\nmain(['bench', 'data', *sys.argv[1:]])\n"
        )
        command = [sys.executable, "-c", script, *words]
        found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place)
        assert found.returncode == 1
        assert "pip install 'fgdd-fast[bench]'" in found.stderr
        assert "Traceback" not in found.stderr


def alive(process: int) -> bool:
    return Path(f"/proc/{process}/cmdline").exists() and bool(Path(f"/proc/{process}/cmdline").read_bytes())


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def descendants(process: int) -> list[int]:
    words = " ".join(file.read_text() for file in Path(f"/proc/{process}/task").glob("*/children")).split()
    return [found for word in words for found in (int(word), *descendants(int(word)))]


def test_ctrl_c_leaves_no_process_and_no_half_written_file(place: Path) -> None:
    words = ["--stages", "compose", "--against", "fair", "--repeats", "5000", "--images", "12"]
    sizes = ["--threads", "1", "--size", "48", "--crops", "3", "--json", "result.json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fgdd_fast", "bench", "data", *words, *sizes],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal sends Ctrl-C to every process of the command
    )
    # the server that forks, the tracker of its resources, and the reference's worker
    wait_for(lambda: process.poll() is not None or len(descendants(process.pid)) == 3)
    time.sleep(0.5)
    workers = descendants(process.pid)
    assert workers
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "Stopped." in errors
    wait_for(lambda: not any(map(alive, workers)), 20)
    assert not list(place.glob("result.json*"))
    assert not list(place.glob(".*.part"))


def test_the_null_device_measures_the_host_and_compares_nothing(place: Path) -> None:
    file = place / "result.json"
    asked = ["--stages", "foreground,teacher", "--repeats", "1", "--images", "6", "--device", "null:1"]
    found = run(place, *asked, "--json", str(file))
    assert found.exit_code == 0, found.output
    assert found.stdout.count("not compared") == 2
    for path in json.loads(file.read_text())["paths"]:
        assert path["implementations"].keys() == {"ours"}
        assert path["implementations"]["ours"]["batch"] == 32  # as on a GPU
        assert path["parity"] == path["speedup"] == {}
        assert "computes nothing, 1 ms" in path["implementations"]["ours"]["arithmetic"]
