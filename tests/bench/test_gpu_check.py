"""The check of a GPU, rehearsed on stand-ins: what is right passes, what errs, crashes or hangs is told."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from plugin_packages import install_plugin
from tiny_grounded import write_grounded_bundle
from tiny_pipeline import foreground_bundle, teacher_bundle, write_squares

from fgdd_bench.gpu_check import engines, running
from fgdd_bench.gpu_check.child import run_case
from fgdd_bench.gpu_check.kit import Kit, open_kit, write_kit
from fgdd_bench.gpu_check.registry import CHECKS, Case
from fgdd_bench.gpu_check.running import check_gpu
from fgdd_bench.gpu_check.skeletons import Packer, fill
from fgdd_engines.plugins import BACKENDS
from fgdd_engines.probing.nvidia import has_nvidia_device
from fgdd_fast.cli import main
from fgdd_fast.errors import BundleError
from fgdd_fast.runtime.sample_images import check_images

# GPU 0 is right; 1 answers what it was asked first, or with two streams what it was asked before; 2 never
# comes back with one stream, and ends the process with two, unless occupancies alone are asked for; 3 does
# not even end its probe.
STAND_IN = """
import os, time
from fgdd_engines.backends import Backend, find_backend
from fgdd_engines.base import Engine

class Recorded(Engine):
    uses_cuda_graphs = True

    def __init__(self, engine, gpu, alone):
        self._engine, self._gpu, self._alone, self._fed = engine, gpu, alone, None
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.streams, self.arithmetic = 2, "stand-in"

    def _run(self, feeds, outputs):
        if self._gpu == 2 and outputs != ["occupancy"]:
            time.sleep(600) if self._alone else os.abort()
        if self._gpu == 1:
            feeds, before = self._fed or dict(feeds), dict(feeds)
            self._fed = feeds if self._alone else before
        return self._engine.run(feeds, outputs)

    def close(self):
        self._engine.close()

def stand_in(gpu):
    def opens(bundle, axes, threads, precision):
        return Recorded(find_backend("cpu").open(bundle, axes, 2, precision), gpu, threads == 1)
    def probe():
        time.sleep(600 if gpu == 3 else 0)
        return "a stand-in"
    return Backend(open=opens, probe=probe, on_processor=False, on_gpu=stand_in)

PLUGIN = stand_in(0)
"""


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """A kit of miniatures."""
    folder = tmp_path_factory.mktemp("kit")
    bundles = foreground_bundle(folder, "saliency"), teacher_bundle(folder, name="teacher")
    write_kit(folder / "kit", bundles, write_squares(folder / "squares", 4))
    return open_kit(folder / "kit", folder / "models", filled=False)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device in a GPU's place."""
    install_plugin(
        monkeypatch, tmp_path, group=BACKENDS, name="stand-in", module="gpu_stand_in", code=STAND_IN
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time a few calls alone."""
    monkeypatch.setattr(engines, "SECONDS", 0.01)
    monkeypatch.setattr(engines, "read_gpus", list)


def states(result: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """What became of each check, and what is said of it."""
    return {row["check"]: (row["state"], row["words"]) for row in result["checks"]}


@pytest.mark.usefixtures("stand_in", "quick")
@pytest.mark.parametrize(
    ("bundle", "checks"), [("saliency", ["decides", "graphs", "streams", "batches"]), ("teacher", ["graphs"])]
)
def test_a_device_that_is_right_passes(kit: Kit, bundle: str, checks: list[str]) -> None:
    for check in checks:
        outcome = run_case(kit, Case(check, "stand-in", bundle, "fp32"))
        assert outcome["state"] == "ok", outcome
    assert run_case(kit, Case("memory", "stand-in", bundle, "fp32"))["state"] == "absent"


@pytest.mark.usefixtures("stand_in", "quick")
@pytest.mark.parametrize("check", ["decides", "graphs", "streams"])
def test_a_device_that_mixes_inputs_up_is_found(kit: Kit, check: str) -> None:
    outcome = run_case(kit, Case(check, "stand-in:1", "saliency", "fp32"))

    assert outcome["state"] == "failed"
    assert "differ" in outcome["words"] or "is accepted" in outcome["words"]


@pytest.mark.usefixtures("quick")
def test_memory_that_is_not_given_back_is_found(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter(range(1000, 3000, 100))
    monkeypatch.setattr(engines, "read_gpus", lambda: [{"memory_used_mib": str(next(used))}])

    outcome = run_case(kit, Case("memory", "cpu", "saliency", "fp32"))

    assert (outcome["state"], outcome["words"]) == (
        "failed",
        "400 MiB more are in use after two further times",
    )


@pytest.mark.usefixtures("stand_in")
def test_a_crash_and_a_hang_lose_themselves_alone(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHECKS, "graphs", replace(CHECKS["graphs"], seconds=2))
    write_kit(tmp_path / "kit", [foreground_bundle(tmp_path)], kit.photographs)
    written = list[str]()

    result = check_gpu(
        tmp_path / "kit", devices=["stand-in:2"], write=lambda found: written.append(json.dumps(found))
    )

    found = states(result)
    assert found["opens"] == ("ok", "a stand-in")
    assert found["decides"][0] == "ok"
    assert found["graphs"] == ("failed", "did not end within 2 seconds")
    assert found["streams"] == ("failed", "its libraries ended the process with SIGABRT")
    assert (found["memory"][0], found["batches"][0]) == ("absent", "failed")
    assert result["verdict"] == "failed"
    assert [len(json.loads(text)["checks"]) for text in written] == [*range(1, len(written) + 1)]


@pytest.mark.usefixtures("stand_in")
def test_the_budget_is_kept_and_says_what_is_left(kit: Kit) -> None:
    result = check_gpu(kit.folder, budget=2, devices=["stand-in:3", "cpu"])

    assert result["seconds"] < 10
    assert states(result) == {"opens": ("left", "the time was over")}
    assert [row["device"] for row in result["checks"]] == ["stand-in:3", "cpu"]
    assert result["verdict"] == ("failed" if has_nvidia_device() else "left")


@pytest.mark.usefixtures("stand_in")
def test_the_whole_way_is_timed_and_compared(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgdd_bench.harness.timing.LONGEST_REPETITION", 0.01)
    for case in (Case("stages", "stand-in", "all"), Case("host", "null", "all")):
        outcome = run_case(kit, case)
        assert outcome["state"] == "ok", outcome
        ours = outcome["figures"]["implementations"]["ours"]
        assert {"read", "decode", "saliency", "teacher", "compose"} <= {
            stage["name"] for stage in ours["stages"]
        }
        assert (ours["device_busy"] is None) == (case.check == "host")


def test_from_the_command_line(kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = check_images(kit.photographs, 3, {})
    write_kit(tmp_path / "kit", [write_grounded_bundle(tmp_path)], kit.photographs, scenes)
    monkeypatch.setattr(running, "all_devices", lambda: ("cpu",))
    command = [
        "doctor",
        "--gpu-check",
        "--gpu-kit",
        str(tmp_path / "kit"),
        "--json",
        str(tmp_path / "out.json"),
    ]

    shown = CliRunner().invoke(main, command)

    assert shown.exit_code == (1 if has_nvidia_device() else 3), shown.output
    result = json.loads((tmp_path / "out.json").read_text())
    cpu = [row for row in result["checks"] if row["device"] == "cpu"]
    assert {(row["check"], row["state"]) for row in cpu} == {("opens", "ok"), ("decides", "ok")}
    assert "no GPU runs here" in shown.stdout


@pytest.mark.parametrize("drawn", [False, True])
def test_a_skeleton_holds_each_weight_once_and_is_filled_again(tmp_path: Path, drawn: bool) -> None:
    weights = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
    table = np.repeat(np.arange(64, dtype=np.float32), 512)
    graphs = {name: _graph(weights.astype(kind), table) for name, kind in _TYPES.items()}
    packer = Packer(tmp_path)
    for name, graph in graphs.items():
        packer.cut(name, graph, drawn=drawn)

    filled = {name: fill(tmp_path, name) for name in graphs}

    assert (tmp_path / "weights.bin").stat().st_size < table.nbytes / 20 + weights.nbytes * (not drawn)
    assert all((tmp_path / name).stat().st_size < 500 for name in graphs)
    assert (filled == graphs) == (not drawn)
    single, half = (_weights(filled[name]) for name in graphs)
    np.testing.assert_array_equal(single.astype(np.float16), half)
    np.testing.assert_allclose([single.mean(), single.std()], [weights.mean(), weights.std()], atol=0.01)


_TYPES = {"single": np.float32, "half": np.float16}


def _graph(*tensors: np.ndarray) -> bytes:
    constants = [onnx.numpy_helper.from_array(each, f"t{place}") for place, each in enumerate(tensors)]
    return onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], constants)).SerializeToString()


def _weights(graph: bytes) -> np.ndarray:
    return onnx.numpy_helper.to_array(onnx.load_from_string(graph).graph.initializer[0])


def test_a_kit_that_is_damaged_or_missing_is_refused(kit: Kit, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="There is no kit in"):
        open_kit(tmp_path / "none", tmp_path / "models")
    copy = Path(shutil.copytree(kit.folder, tmp_path / "copy"))
    (copy / "models/teacher.graph").write_bytes(b"")
    with pytest.raises(BundleError, match="is not the one that its sidecar describes"):
        open_kit(copy, tmp_path / "models", filled=False).bundle("teacher")
