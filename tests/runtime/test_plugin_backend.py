"""A backend that another package adds measures and distils, and the manifest names it with its version."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import tiny_pipeline
from click.testing import CliRunner
from plugin_packages import install_plugin
from tiny_distillation import assert_refused, contents, distill

from fgdd_engines.backends import all_devices, find_backend
from fgdd_engines.plugins import BACKENDS
from fgdd_engines.probing.probes import probe, probe_all
from fgdd_fast.cli import main
from fgdd_fast.errors import PluginError, SettingsError
from fgdd_fast.runtime.choose import choose_runtime

COUNTING = """
import numpy as np
from fgdd_engines.backends import Backend
from fgdd_engines.base import Engine
from fgdd_engines.shapes import fix_axes

class Counting(Engine):
    calls = 0

    def __init__(self, bundle, axes, threads, precision):
        self.inputs, self.outputs = fix_axes(bundle, axes)
        self.streams = threads
        self.arithmetic = "counting"

    def _run(self, feeds, outputs):
        Counting.calls += 1
        return {spec.name: np.ones(spec.shape, spec.dtype) for spec in self.outputs if spec.name in outputs}

    def close(self):
        pass

PLUGIN = Backend(open=Counting, probe=lambda: "counting 1.2", on_processor=True)
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    tiny_pipeline.write_squares(tmp_path / "data", 6)
    tiny_pipeline.foreground_bundle(tmp_path)
    tiny_pipeline.teacher_bundle(tmp_path)
    return tmp_path


def offer(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, code: str = COUNTING) -> None:
    (folder / name).mkdir()
    install_plugin(
        monkeypatch,
        folder / name,
        group=BACKENDS,
        name=name,
        module=f"backend_{name}",
        code=code,
        distribution=f"toy-{name}",
    )


def test_it_distils_and_the_manifest_names_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, data, "counting")
    result = distill(data, device="counting")
    assert result.exit_code == 0, result.output
    assert importlib.import_module("backend_counting").Counting.calls > 0
    assert len([name for name in contents(data / "out") if name.endswith(".png")]) >= 3
    manifest = json.loads((data / "out" / "manifest.json").read_text())
    assert "counting, plug-in toy-counting 1.2" in manifest["tool"]["runtime"]
    bundle = tiny_pipeline.foreground_bundle(data)
    assert choose_runtime(bundle, "counting", "auto", 1).runtime.precision == "fp32"
    with pytest.raises(SettingsError, match=r"counting does not compute in int8\. Use the precision fp32"):
        choose_runtime(bundle, "counting", "int8", 1)


def test_it_is_probed_and_listed_after_what_is_built_in(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, data, "listed")
    offer(monkeypatch, data, "broken", "raise RuntimeError('no licence')\n")
    offer(monkeypatch, data, "failing", COUNTING.replace('"counting 1.2"', "1 / 0"))
    assert all_devices()[-3:] == ("broken", "failing", "listed")
    assert find_backend("listed").origin == "toy-listed 1.2"
    broken, failing, listed = probe_all()[-3:]
    assert (listed.runs, listed.detail) == (True, "counting 1.2")
    assert (broken.runs, broken.advice) == (False, "Update it, or remove it: pip uninstall toy-broken")
    assert "no licence" in broken.detail
    assert (failing.runs, failing.detail) == (
        False,
        "its probe failed: ZeroDivisionError: division by zero",
    )
    assert_refused(distill(data, device="broken"), "The plug-in 'broken' of toy-broken 1.2", "no licence")
    probe.cache_clear()
    with pytest.raises(PluginError):
        find_backend("broken")


def test_an_unknown_device_is_told_with_the_known_ones(data: Path) -> None:
    assert_refused(distill(data, device="abacus"), "There is no device 'abacus'", "cpu, openvino, cuda")
    assert_refused(distill(data, device="onnxruntime-rtx"), "Use the device tensorrt-rtx")
    assert_refused(distill(data, device="cpu:1"), "The device cpu has no GPUs to choose from")
    assert_refused(distill(data, device="cuda:x"), "does not end with the number of a GPU", "cuda:1")
    words = ["evaluate", str(data), "--validation", str(data), "--teacher-device", "abacus"]
    assert_refused(CliRunner().invoke(main, words), "There is no device 'abacus'")


def test_help_looks_up_no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgdd_engines.backends.find_plugins", None)
    result = CliRunner().invoke(main, ["distill", "--help"])
    assert result.exit_code == 0, result.output
    assert "auto|cpu|openvino|cuda|tensorrt|tensorrt-rtx" in "".join(result.output.split())
