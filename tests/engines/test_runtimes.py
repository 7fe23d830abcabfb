"""The runtimes as they are imported and held."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from installed_devices import available_devices
from tiny_models import tiny_description

from fgdd_engines import optional_imports
from fgdd_engines.bundle.bundle import write_bundle


def test_failures_leave_signals_in_order(tmp_path: Path) -> None:
    """A signal that is handled after graphs failed to load: their engines freed what it is handled on."""
    broken = write_bundle(tiny_description(tmp_path / "broken.onnx"), b"no graph at all")
    code = f"""if True:
        import gc, pickle, signal, subprocess, sys
        from fgdd_engines.factory import open_engine
        from fgdd_fast.errors import EngineError
        bundle = pickle.loads({pickle.dumps(broken)!r})
        failures, noticed = [], []
        for _ in range(3):
            for device in {available_devices()!r}:
                try:
                    open_engine(bundle, device=device, axes={{"batch": 1}}, threads=1)
                except EngineError as failure:
                    failures.append(failure)
        while failures:
            failures.pop(0)
            gc.collect()
        signal.signal(signal.SIGCHLD, lambda *_: noticed.append(True))
        subprocess.run([sys.executable, "-c", ""], check=True)
        assert noticed
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")


@pytest.mark.parametrize("before", [None, "0"])
def test_importing_onnx_runtime_leaves_the_environment_as_it_was(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    if before is None:
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    else:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", before)
    seen = []
    monkeypatch.setattr(
        optional_imports, "import_optional", lambda *_: seen.append(os.environ["ORT_DISABLE_TELEMETRY"])
    )
    optional_imports.import_onnxruntime()
    assert seen == ["1"]
    assert os.environ.get("ORT_DISABLE_TELEMETRY") == before


@pytest.mark.parametrize(
    "before", [{}, {"openvino_telemetry": None}, {"openvino_telemetry": optional_imports}]
)
def test_importing_openvino_leaves_other_modules_as_they_were(
    monkeypatch: pytest.MonkeyPatch, before: dict[str, ModuleType | None]
) -> None:
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    for name, module in before.items():
        monkeypatch.setitem(sys.modules, name, module)
    seen = []
    monkeypatch.setattr(
        optional_imports, "import_optional", lambda *_: seen.append(sys.modules["openvino_telemetry"])
    )
    optional_imports.import_openvino()
    assert seen == [None]
    assert {name: module for name, module in sys.modules.items() if name == "openvino_telemetry"} == before
