"""What boards install resolves from wheels alone, and brings neither PyTorch nor TensorRT.

pip resolves for another platform without installing anything (`--dry-run`); it reads markers such as
`python_version < "3.11"` as on the machine it runs on, so these are evaluated here, for the board.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from benchmarks.studies.emulated_aarch64 import compare
from fgdd_fast.cli import main

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "jetson.md"
EXTRAS = ("cpu", "prompts", "models")
PIP_FOUND_NONE = 1
TIME_LIMIT = 300  # seconds for one resolution
FORBIDDEN = ("torch", "triton", "nvidia", "cuda", "tensorrt", "onnxruntime-gpu")  # and what begins so


@dataclass(frozen=True)
class Board:
    """An aarch64 machine as pip sees it.

    Attributes:
        python: its minor version, such as 3.10.
        glibc: minor version of its glibc 2, which bounds the manylinux tags of its wheels.
    """

    python: str
    glibc: int

    @property
    def platforms(self) -> list[str]:
        """Every platform tag whose wheels it can install."""
        return [
            "manylinux2014_aarch64",
            *(f"manylinux_2_{minor}_aarch64" for minor in range(17, self.glibc + 1)),
        ]

    @property
    def markers(self) -> dict[str, str]:
        """Its values of environment markers."""
        return {
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": "aarch64",
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


JETPACK_6 = Board("3.10", 35)  # Ubuntu 22.04
JETPACK_7 = Board("3.12", 39)  # Ubuntu 24.04


@dataclass(frozen=True)
class Wheel:
    """A wheel that pip chose.

    Attributes:
        file: its file name.
        requires: what its metadata asks for, with markers.
    """

    file: str
    requires: tuple[Requirement, ...]


def pip_resolve(requirements: Iterable[str], board: Board, folder: Path) -> dict[str, Wheel]:
    """Every wheel, by project, that pip would install on a board.

    Raises:
        CalledProcessError: no wheels satisfy the requirements.
    """
    report = folder / "report.json"
    platforms = [word for platform in board.platforms for word in ("--platform", platform)]
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--quiet", "--report", str(report)]
    target = ["--target", str(folder / "target"), "--implementation", "cp", "--python-version", board.python]
    command = [sys.executable, "-m", "pip", "install", *options, *target, *platforms, *requirements]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIME_LIMIT)
    wheels = {}
    for item in json.loads(report.read_text(encoding="utf-8"))["install"]:
        requires = tuple(Requirement(line) for line in item["metadata"].get("requires_dist", []))
        file = item["download_info"]["url"].rpartition("/")[2]
        wheels[str(canonicalize_name(item["metadata"]["name"]))] = Wheel(file, requires)
    return wheels


def needed(requirements: Iterable[str], wheels: dict[str, Wheel], board: Board) -> tuple[set[str], set[str]]:
    """What a board needs, by its own markers: projects that are among the wheels, and requirements unmet."""
    waiting = [Requirement(line) for line in requirements]
    found: set[tuple[str, frozenset[str]]] = set()
    unmet = set()
    while waiting:
        requirement = waiting.pop()
        name = str(canonicalize_name(requirement.name))
        if name not in wheels:
            unmet.add(f"{name}{requirement.specifier}")
        elif (key := (name, frozenset(requirement.extras))) not in found:
            found.add(key)
            extras = ["", *requirement.extras]
            waiting += [
                child
                for child in wheels[name].requires
                if child.marker is None
                or any(child.marker.evaluate({**board.markers, "extra": extra}) for extra in extras)
            ]
    return {name for name, _ in found}, unmet


def resolve(requirements: Iterable[str], board: Board, folder: Path) -> dict[str, Wheel]:
    """The wheels that a board would install for some requirements, by project."""
    asked = list(requirements)
    wheels = pip_resolve(asked, board, folder)
    while unmet := needed(asked, wheels, board)[1]:  # by a marker that is true on the board, and not here
        wheels = pip_resolve(unmet, board, folder) | wheels
    return {name: wheels[name] for name in needed(asked, wheels, board)[0]}


def requirements_of(*extras: str) -> list[str]:
    """The requirement lines of the base install and of extras, from setup.cfg."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = [
        setup["options"]["install_requires"],
        *(setup["options.extras_require"][extra] for extra in extras),
    ]
    return [line for text in lines for line in text.split("\n") if line]


@pytest.fixture(scope="module")
def _registry(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where no registry answers."""
    try:
        pip_resolve(["click"], JETPACK_6, tmp_path_factory.mktemp("probe"))
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        if isinstance(error, subprocess.CalledProcessError) and error.returncode != PIP_FOUND_NONE:
            raise  # it is the command that is wrong
        pytest.skip("no package registry answers")


@pytest.fixture(scope="module", params=[JETPACK_6, JETPACK_7], ids=["JetPack 6", "JetPack 7"])
def board(request: pytest.FixtureRequest) -> Board:
    return cast(Board, request.param)


@pytest.fixture(scope="module")
def wheels(board: Board, _registry: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Wheel]:
    """What the board installs with every extra that the guide names."""
    return resolve(requirements_of(*EXTRAS), board, tmp_path_factory.mktemp("board"))


@pytest.mark.network
def test_a_board_installs_wheels_alone(board: Board, wheels: dict[str, Wheel]) -> None:
    tags = {
        name: {tag.platform for tag in parse_wheel_filename(wheel.file)[3]} for name, wheel in wheels.items()
    }
    assert {name: found for name, found in tags.items() if not found & {"any", *board.platforms}} == {}
    assert "any" not in tags["numpy"]  # so some of the wheels are the board's own


@pytest.mark.network
@pytest.mark.parametrize("extras", [(), *((extra,) for extra in EXTRAS)], ids=("base", *EXTRAS))
def test_neither_torch_nor_tensorrt_comes_along(
    board: Board, wheels: dict[str, Wheel], extras: tuple[str, ...]
) -> None:
    asked = requirements_of(*extras)
    names, unmet = needed(asked, wheels, board)
    assert unmet == set()
    assert {str(canonicalize_name(Requirement(line).name)) for line in asked} <= names
    assert [name for name in names if name.startswith(FORBIDDEN)] == []


@pytest.mark.network
def test_the_base_install_brings_nothing_of_the_extras(board: Board, wheels: dict[str, Wheel]) -> None:
    base = needed(requirements_of(), wheels, board)[0]
    of_extras = {Requirement(line).name for line in set(requirements_of(*EXTRAS)) - set(requirements_of())}
    assert len(of_extras) > 4
    assert base & of_extras == set()


@pytest.mark.network
@pytest.mark.usefixtures("_registry")
def test_the_cuda_bindings_that_the_guide_names_have_wheels_for_its_boards(tmp_path: Path) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d)\.[^|]*\|.*\| (\d\.\d+) \|.*`(cuda-bindings==[^`]+)`", text, re.MULTILINE)
    boards = {"6": JETPACK_6, "7": JETPACK_7}
    assert {jetpack for jetpack, _, _ in rows} == boards.keys()
    for jetpack, python, requirement in set(rows):
        assert python == boards[jetpack].python
        file = resolve([requirement], boards[jetpack], tmp_path)["cuda-bindings"].file
        assert f"-cp{python.replace('.', '')}-" in file
        assert "aarch64" in file


def test_distillations_are_compared_by_their_decisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    data = tiny.write_squares(tmp_path / "data", 6)
    foreground, teacher = tiny.foreground_bundle(tmp_path), tiny.teacher_bundle(tmp_path)
    models = ["--foreground", str(foreground.onnx), "--teacher", str(teacher.onnx), "--device", "cpu"]
    for rule in ("median", "always-full"):
        words = ["distill", str(data), str(tmp_path / rule), *models, "--ipc", "1", "--size", "16"]
        result = CliRunner().invoke(main, [*words, "--rule", rule, "--crops", "2"])
        assert result.exit_code == 0, result.output
    same = compare(tmp_path / "median", tmp_path / "median")
    assert same["same_decisions"]
    assert same["tiles"] == 12
    assert 0 < same["whole_tiles"] < 12
    assert {same[name] for name in same if name.startswith("largest")} == {0}
    other = compare(tmp_path / "median", tmp_path / "always-full")
    assert not other["same_decisions"]
    assert 0 < other["tiles_that_differ"] <= 12
    assert other["largest_pixel_difference"] > 0
