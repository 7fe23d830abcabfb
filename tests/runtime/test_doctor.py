"""The doctor tells what runs and what would add what is missing, on whatever machine it is asked."""

from __future__ import annotations

import configparser
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from click.testing import CliRunner
from heavy_packages import HEAVY
from plugin_packages import install_plugin
from rich.console import Console

from fgdd_engines.backends import DEVICES
from fgdd_engines.plugins import STUDENTS
from fgdd_engines.probing.probes import Probe
from fgdd_fast.cli.checks import doctor as cli
from fgdd_fast.runtime import doctor
from fgdd_fast.runtime.doctor import Cache, Extra, ModelState, Report, Step, examine, read_cache, read_extras
from fgdd_fast.runtime.machine import Gpu, Jetson, Machine, Nvidia

REPORT = Report(
    versions={"fgdd-fast": "0.1.0", "onnxruntime": "1.32.0", "tensorrt": None},
    machine=Machine("A processor", ("avx2",), 4, 2**33, 2**32, "Linux x86_64", "3.12.1"),
    nvidia=Nvidia(reason="no NVIDIA GPU or driver was found"),
    jetson=None,
    devices=(
        Probe("cpu", True, "ONNX Runtime 1.32.0, CPUExecutionProvider"),
        Probe("cuda", False, "no NVIDIA GPU or driver was found"),
    ),
    extras=(Extra("cpu", ()), Extra("gpu", ("onnxruntime-gpu>=1.18",)), Extra("export", ())),
    models=(ModelState("saliency", "foreground", "ok"),),
    cache=Cache("/a/cache", {"models": 3 * 2**20, "store": 0}),
)


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Install exactly these packages."""

    def install(installed: dict[str, str]) -> None:
        monkeypatch.setattr(doctor, "_version", installed.get)

    return install


def shown(report: Report) -> str:
    console = Console(width=80, highlight=False, no_color=True)
    with console.capture() as capture:
        cli._show(report, console)
    return capture.get()


def test_the_base_install_is_enough() -> None:
    script = (
        "import sys\n"
        f"for name in {[*HEAVY, 'tensorrt_rtx', 'cuda']}: sys.modules[name] = None\n"
        "from fgdd_fast.cli.checks.doctor import doctor\n"
        "doctor()\n"
    )
    command = [sys.executable, "-c", script, "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert not any(probe["runs"] for probe in report["devices"])
    assert "pip install 'fgdd-fast[cpu]'" in [step["command"] for step in report["steps"]]


def test_json_is_one_object_with_stable_keys() -> None:
    result = CliRunner().invoke(cli.doctor, ["--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    keys = "versions machine nvidia jetson devices extras models cache foregrounds students steps"
    assert " ".join(report) == keys
    assert [probe["device"] for probe in report["devices"]] == list(DEVICES)
    assert list(report["cache"]["sizes"]) == ["models", "store", "sources", "engines", "agreement"]
    assert {model["state"] for model in report["models"]} == {"absent"}
    assert any(step["command"].startswith("fgdd-fast models pull ") for step in report["steps"])


def test_a_checkout_that_pip_does_not_know_has_no_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(package: str) -> None:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(doctor, "metadata", unknown)
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    assert examine([]).extras == ()


def test_a_machine_that_lacks_nothing() -> None:
    assert REPORT.steps == ()
    jetson = Jetson("NVIDIA Jetson AGX Orin Developer Kit", "36.4.3", None, "MAXN")
    nvidia = Nvidia((Gpu("Orin", "8.7", 2**36), Gpu("Another", None, None)), "540.4.0", "12.6")
    machine = replace(REPORT.machine, processor="[bold]x[/]")
    text = shown(replace(REPORT, machine=machine, jetson=jetson, nvidia=nvidia))
    assert text.endswith("Nothing is missing that this machine could use.\n")
    for words in (
        "[bold]x[/]",  # what the system says is no markup
        "4.0 GiB available",
        "models  3.0 MiB",
        "JetPack       unknown",
        "power mode    MAXN",
        "GPU 0   Orin, compute capability 8.7, memory 64.0 GiB",
        "GPU 1   Another, compute capability unknown, memory unknown",
        "540.4.0, for CUDA up to 12.6",
    ):
        assert words in text


def test_commands_stay_whole_on_their_line() -> None:
    advice = f"pip uninstall -y onnxruntime && pip install 'fgdd-fast[gpu]' {'and more of it ' * 3}"
    lacking = Probe("cuda", False, "ONNX Runtime was built without it", advice)
    text = shown(replace(REPORT, devices=(lacking, replace(lacking, device="tensorrt"))))
    assert f"To run models on cuda and tensorrt:\n  {advice}\n" in text
    assert max(map(len, text.split("To run")[0].splitlines())) <= 80


def test_each_missing_thing_has_one_step() -> None:
    report = replace(
        REPORT,
        extras=(Extra("gpu", ("onnxruntime-gpu>=1.18",)), Extra("prompts", ("tokenizers>=0.15",))),
        models=(
            ModelState("a", "foreground", "absent"),
            ModelState("b", "foreground", "damaged", "its file is cut off"),
            ModelState("c", "backbone", "ok"),
        ),
    )
    assert report.steps == (
        Step("ask Grounded SAM 2 for classes by their names", "pip install 'fgdd-fast[prompts]'"),
        Step("have the catalogue's models", "fgdd-fast models pull a b"),
    )
    text = shown(report)
    assert "lacks tokenizers>=0.15" in text
    assert "damaged (its file is cut off)" in text


def test_extras_lack_what_is_absent_or_too_old(versions: Callable[[dict[str, str]], None]) -> None:
    versions({"onnx": "1.16.2", "onnxslim": "0.1.5", "torch": "2.13.0+cpu", "numpy": "2.0"})
    requirements = [
        "numpy>=1.24",
        'onnx>=1.16; extra == "models"',
        'onnxslim>=0.1.50; extra == "models"',
        "scikit-learn>=1.3 ; (python_version < '4') and extra == 'models'",
        'torch>=2.6; extra == "export"',
        'torch; extra == "export"',
        'absent; platform_machine == "another" and extra == "export"',
    ]
    requirements.append(f'absent; platform_machine == "{platform.machine()}" and extra == "here"')
    assert read_extras(["models", "export", "empty", "here"], requirements) == (
        Extra("models", ("onnxslim>=0.1.50", "scikit-learn>=1.3")),
        Extra("export", ()),
        Extra("empty", ()),
        Extra("here", ("absent",)),
    )


@pytest.mark.parametrize(
    ("installed", "lowest", "met"),
    [("2", "2.0", True), ("2.0rc1", "2.0", True), ("1.9", "1.10", False), ("10.3", "9.9.9", True)],
)
def test_versions_compare_by_number(
    versions: Callable[[dict[str, str]], None], installed: str, lowest: str, met: bool
) -> None:
    versions({"some.package": installed})
    (extra,) = read_extras(["x"], [f'some.package>={lowest}; extra == "x"'])
    assert (extra.missing == ()) is met


def test_the_extras_of_tasks_exist() -> None:
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(Path(__file__).parents[2] / "setup.cfg")
    assert set(doctor._TASKS) <= set(settings["options.extras_require"])


def test_the_caches_folders_are_measured(tmp_path: Path) -> None:
    (tmp_path / "models" / "deep").mkdir(parents=True)
    (tmp_path / "models" / "a").write_bytes(b"123")
    (tmp_path / "models" / "deep" / "b").write_bytes(b"45")
    (tmp_path / "something").mkdir()
    sizes = read_cache(tmp_path).sizes
    assert sizes == {"models": 5, "store": 0, "sources": 0, "engines": 0, "agreement": 0, "something": 0}
    assert sum(read_cache(tmp_path / "absent").sizes.values()) == 0
    assert sum(read_cache(tmp_path / "models" / "a").sizes.values()) == 0


def test_sizes_are_readable() -> None:
    sizes = (0, 1023, 1024, 3 * 2**29, 2**51)
    assert [cli.readable_size(size) for size in sizes] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 GiB",
        "2048.0 TiB",
    ]


def test_students_are_told_with_who_offers_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(monkeypatch, tmp_path, group=STUDENTS, name="own", module="own_student", code="new = None")
    students = examine([], ["convnet3"]).students
    assert students == {"convnet3": "fgdd-fast", "own": "own_student 1.2"}
    assert "own_student 1.2  own" in shown(replace(REPORT, students=students))
