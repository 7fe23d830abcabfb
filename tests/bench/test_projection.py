"""A projection's arithmetic against hand-computed values, and the rates that go into it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks.studies.scale.project import main
from benchmarks.studies.scale.projection import (
    IMAGENET,
    NETWORKS,
    UNITS,
    Projection,
    Rates,
    Workload,
    project,
)
from benchmarks.studies.scale.projection_rates import parse_given, read_rates, with_given
from fgdd_fast.errors import SettingsError

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
# 20 images of 0.5 megapixels and 0.1 MB, 4 mosaics of 2 x 2 tiles.
SMALL = Workload(name="small", classes=2, pool=10, crops=5, ipc=2, factor=2, megapixels=0.5, megabytes=0.1)
RATES = Rates(
    seconds={
        "decode pixels": 0.01,
        "decode bytes": 0.02,
        "cut": 0.03,
        "foreground": 0.2,
        "teacher": 0.05,
        "overhead": 0.001,
        "decide": 0.002,
        "compose": 0.04,
    },
    threads=2,
    start=3.0,
)


def totals(projection: Projection, phase: str) -> dict[str, float]:
    return {row.work: pytest.approx(row.total) for row in projection.rows if row.phase == phase}


def test_on_a_processor_everything_shares_its_threads() -> None:
    projection = project(SMALL, RATES)
    assert totals(projection, "measure") == {
        "decode pixels": 20 * 0.5 * 0.01,
        "decode bytes": 20 * 0.1 * 0.02,
        "cut": 20 * 0.5 * 0.03,
        "foreground": 20 * 0.2,
        "teacher": 20 * 6 * 0.05,
        "overhead": 20 * 0.001,
    }
    assert totals(projection, "decide") == {"decide": 20 * 0.002}
    assert totals(projection, "compose") == {
        "decode pixels": 16 * 0.5 * 0.01,
        "decode bytes": 16 * 0.1 * 0.02,
        "compose": 4 * 0.04,
    }
    measure, decide, compose = projection.phases
    assert measure.seconds == pytest.approx((0.1 + 0.04 + 0.3 + 4 + 6 + 0.02) / 2)
    assert (measure.bound_by, decide.bound_by, compose.bound_by) == ("processor", "main thread", "processor")
    assert decide.seconds == pytest.approx(0.04)  # one thread decides, however many there are
    assert compose.seconds == pytest.approx((0.08 + 0.032 + 0.16) / 2)
    assert projection.seconds == pytest.approx(3 + 5.23 + 0.04 + 0.136)
    assert projection.left_out == ()


def test_a_gpu_works_beside_the_processor() -> None:
    faster = replace(RATES, on_gpu=NETWORKS, seconds={**RATES.seconds, "foreground": 0.01, "teacher": 0.001})
    measure = project(SMALL, faster).phases[0]
    assert measure.busy == {
        "processor": pytest.approx((0.1 + 0.04 + 0.3 + 0.02) / 2),
        "main thread": pytest.approx(0.02),
        "GPU": pytest.approx(20 * 0.01 + 120 * 0.001),
    }
    assert (measure.bound_by, measure.seconds) == ("GPU", pytest.approx(0.32))
    instant = replace(faster, seconds={**faster.seconds, "foreground": 0.0001, "teacher": 0.00001})
    assert project(SMALL, instant).phases[0].bound_by == "processor"
    many = replace(instant, threads=64)
    assert project(SMALL, many).phases[0].bound_by == "main thread"


def test_imagenet_is_300_images_and_10_mosaics_of_each_of_1000_classes() -> None:
    amounts = IMAGENET.amounts()
    assert amounts["measure"]["foreground"] == amounts["decide"]["decide"] == 300_000
    assert amounts["measure"]["teacher"] == 1_800_000
    assert amounts["measure"]["decode pixels"] == pytest.approx(300_000 * 469 * 387 / 1e6, rel=1e-3)
    assert amounts["measure"]["decode bytes"] == pytest.approx(300_000 * 0.11544, rel=1e-3)
    assert amounts["compose"]["compose"] == 10_000
    assert amounts["compose"]["decode pixels"] == pytest.approx(40_000 * 0.1815)


def test_work_without_a_rate_is_named() -> None:
    projection = project(SMALL, Rates(seconds={"teacher": 0.05}, threads=2))
    assert projection.seconds == pytest.approx(120 * 0.05 / 2)
    assert projection.left_out == tuple(work for work in UNITS if work != "teacher")


def stages_result(**changes: Any) -> dict[str, Any]:
    return {
        "images": 10,
        "threads": 4,
        "crops": 4,
        "runtimes": ["OpenVINO 1, CPU, bf16, 2 streams", "ONNX Runtime 1, CPU, fp32"],
        "seconds": [
            {
                "decode": time,
                "resize and crop": 2 * time,
                "foreground": 30 * time,
                "teacher": 5 * time,
                "whole": 0,
            }
            for time in (0.9, 0.1, 0.2)
        ],
        **changes,
    }


def test_a_result_of_stages_gives_rates(tmp_path: Path) -> None:
    file = tmp_path / "stages.json"
    file.write_text(json.dumps(stages_result()))
    rates = read_rates(file, SMALL)
    assert rates.threads == 4
    assert rates.on_gpu == ()
    assert rates.seconds == {
        "decode pixels": pytest.approx(0.02 * 4 / 0.5),  # its images count as large as the workload's
        "decode bytes": 0,
        "cut": pytest.approx(0.04 * 4 / 0.5),
        "foreground": pytest.approx(0.6 * 4),
        "teacher": pytest.approx(0.1 * 4 / 5),
    }
    file.write_text(json.dumps(stages_result(runtimes=["given masks", "TensorRT 10, NVIDIA H100, fp16"])))
    rates = read_rates(file, SMALL)
    assert rates.on_gpu == ("teacher",)
    assert rates.seconds["foreground"] == pytest.approx(0.6 * 4)
    assert rates.seconds["teacher"] == pytest.approx(0.1 / 5)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"projection": {"rates": {"seconds": {}}}}'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "rates.json").write_text(content)
    with pytest.raises(SettingsError, match="is no result"):
        read_rates(tmp_path / "rates.json", SMALL)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_rates(tmp_path / "absent.json", SMALL)


def test_given_rates_are_of_all_threads_of_the_main_thread_or_of_the_gpu() -> None:
    given = {"decode": 800.0, "cut": 400.0, "foreground": 50.0, "teacher": 1000.0, "overhead": 500.0}
    seconds = with_given(RATES, given, SMALL, gpu=False, threads=8).seconds
    assert seconds["decode pixels"] * 0.5 == pytest.approx(8 / 800)
    assert seconds["decode bytes"] == 0
    assert seconds["cut"] * 0.5 == pytest.approx(8 / 400)
    assert seconds["foreground"] == pytest.approx(8 / 50)
    assert seconds["overhead"] == pytest.approx(1 / 500)
    assert seconds["compose"] == RATES.seconds["compose"]
    gpu = with_given(RATES, given, SMALL, gpu=True, threads=None)
    assert gpu.threads == RATES.threads
    assert (gpu.seconds["foreground"], gpu.seconds["teacher"]) == pytest.approx((1 / 50, 1 / 1000))


def test_a_processors_rates_are_not_taken_for_a_gpus() -> None:
    with pytest.raises(SettingsError, match="runs the teacher is not known"):
        with_given(RATES, {"foreground": 50.0}, SMALL, gpu=True, threads=None)


@pytest.mark.parametrize(
    "text", ["teacher", "teacher=", "teacher=fast", "teacher=0", "teacher=inf", "whole=3"]
)
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is none"):
        parse_given(text)


def run(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_the_command_shows_the_arithmetic_and_reads_its_own_result(tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    result = run("--rates", str(RESULTS / "stages.json"), "--rate", "compose=100", "--json", str(first))
    assert result.exit_code == 0, result.output
    data = json.loads(first.read_text())["projection"]
    assert data["workload"] == asdict(IMAGENET)
    assert data["left_out"] == ["overhead", "decide"]
    assert "overhead, decide" in result.output
    # 6.9 images a second is what README says of the whole on that machine.
    assert data["phases"][0]["seconds"] == pytest.approx(300_000 / 6.9, rel=0.05)
    assert data["phases"][2]["busy"]["processor"] > 10_000 / 100
    assert run("--rates", str(first), "--json", str(second)).exit_code == 0
    assert json.loads(second.read_text())["projection"] == data


def test_the_command_projects_other_sizes() -> None:
    result = run("--rate", "decide=100", "--classes", "10", "--pool", "30")
    assert result.exit_code == 0, result.output
    assert "10 classes of 30 images" in result.output
    assert "in all 3 s" in result.output


def test_the_command_explains_what_is_wrong() -> None:
    result = run("--rate", "teacher=18000", "--gpu")
    assert result.exit_code == 1
    assert "--rate foreground=PER_SECOND" in result.output
    assert isinstance(result.exception, SystemExit)
