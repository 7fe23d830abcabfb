"""Opening engines: axes, graphs and sidecars that do not fit, and failures that become one sentence."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from every_engine import write_variant
from installed_devices import available_devices
from tiny_models import CLASSES, SIDE, tiny_description, tiny_graph

from fgdd_engines.base import Device, Engine, TensorSpec
from fgdd_engines.bundle.bundle import Bundle, write_bundle
from fgdd_engines.errors import wrapped_as_engine_error
from fgdd_engines.factory import open_engine
from fgdd_fast.errors import BundleError, EngineError, MissingExtraError, SettingsError
from fgdd_fast.models.catalogue.catalogue import find_bundle

PACKAGES = {"cpu": "onnxruntime", "openvino": "openvino"}


@pytest.fixture(params=PACKAGES)
def device(request: pytest.FixtureRequest) -> Device:
    if request.param not in available_devices():
        pytest.skip(f"{PACKAGES[request.param]} is not installed")
    found: Device = request.param
    return found


def opened(bundle: Bundle, device: Device, threads: int = 2) -> Engine:
    return open_engine(bundle, device=device, precision="fp32", axes={"batch": 4}, threads=threads)


@pytest.mark.parametrize("axes", [{}, {"height": 8}, {"batch": 2, "height": 8}, {"batch": 0}, {"batch": -1}])
def test_axes_that_are_not_the_models_are_refused(
    bundle: Bundle, device: Device, axes: dict[str, int]
) -> None:
    with pytest.raises(EngineError, match="'tiny'"):
        open_engine(bundle, device=device, axes=axes, threads=1)


def test_all_threads_in_one_stream_give_what_a_thread_gives(device: Device) -> None:
    try:
        real = find_bundle("saliency-u2netp")
    except BundleError:
        pytest.skip("run: fgdd-fast models pull saliency-u2netp")
    images = np.random.default_rng(0).integers(0, 256, (1, 320, 320, 3), np.uint8)
    given = {"device": device, "axes": {"batch": 1}, "threads": 2}
    with open_engine(real, **given) as each, open_engine(real, **given, one_stream=True) as joined:
        assert (each.streams, joined.streams) == (2, 1)
        assert each.arithmetic == joined.arithmetic
        expected, found = (engine.run({"images": images}) for engine in (each, joined))
    assert all((found[name] == expected[name]).all() for name in expected)


def test_no_threads_are_refused(bundle: Bundle, device: Device) -> None:
    with pytest.raises(SettingsError, match="at least one thread"):
        opened(bundle, device, threads=0)


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_a_missing_runtime_is_named_with_its_extra(
    bundle: Bundle, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[device], None)
    assert device not in available_devices()
    with pytest.raises(MissingExtraError, match=r"pip install 'fgdd-fast\[cpu\]'") as caught:
        open_engine(bundle, device=device, axes={"batch": 1}, threads=1)
    assert caught.value.package == PACKAGES[device]


@pytest.mark.parametrize("content", [b"", b"no graph at all", tiny_graph()[:-100]])
def test_a_graph_that_cannot_load(
    tmp_path: Path,
    device: Device,
    content: bytes,
    capfd: pytest.CaptureFixture[str],
) -> None:
    broken = write_bundle(tiny_description(tmp_path / "broken.onnx"), content)
    with pytest.raises(EngineError, match=r"(cannot load 'tiny': \S|sidecar of 'tiny')") as caught:
        opened(broken, device)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_onnx_runtime_loads_no_bf16_on_a_processor(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"cannot load 'tiny': .*bfloat16"):
        open_engine(write_variant(bundle, "bf16"), device="cpu", axes={"batch": 1}, threads=1)


def test_an_unknown_operator(tmp_path: Path, device: Device, capfd: pytest.CaptureFixture[str]) -> None:
    model = onnx.load_model_from_string(tiny_graph())
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Frobnicate"
    broken = write_bundle(tiny_description(tmp_path / "broken.onnx"), model.SerializeToString())
    with pytest.raises(EngineError, match=r"cannot load 'tiny': .*Frobnicate"):
        opened(broken, device)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": (TensorSpec("pictures", "uint8", ("batch", SIDE, SIDE, 3)),)},
        {"outputs": (TensorSpec("logits", "float32", ("batch", 7)),)},
        {"outputs": (TensorSpec("logits", "float16", ("batch", len(CLASSES))),)},
        {"outputs": (TensorSpec("logits", "float32", ("rows", len(CLASSES))),)},
    ],
)
def test_a_sidecar_that_is_not_the_graphs(bundle: Bundle, device: Device, changes: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="'tiny'"):
        opened(replace(bundle, **changes), device)


def test_the_runtimes_stay_silent_and_at_home(bundle: Bundle, tmp_path: Path) -> None:
    """Nothing on stderr, no telemetry, no file in the home folder."""
    devices = available_devices()
    code = f"""if True:
        import sys
        from pathlib import Path
        import numpy as np
        from fgdd_engines.bundle.bundle import load_bundle
        from fgdd_engines.factory import open_engine
        bundle = load_bundle(Path({str(bundle.onnx)!r}))
        for device in {devices!r}:
            with open_engine(bundle, device=device, axes={{"batch": 1}}, threads=1) as engine:
                engine.run({{spec.name: np.zeros(spec.shape, spec.dtype) for spec in engine.inputs}})
        assert "openvino_telemetry" not in sys.modules
        assert "openvino.tools.ovc" in sys.modules or {devices!r} == ("cpu",)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], env={"HOME": str(tmp_path)}, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_runtimes_reason_becomes_one_line() -> None:
    message = "Exception from src/core.cpp:84:\nCheck 'a == b' failed at src/fe.cpp:563:\nNo such layer.\n\n"
    with pytest.raises(EngineError) as caught, wrapped_as_engine_error("It cannot load"):
        raise RuntimeError(message)
    assert caught.value.problem == "It cannot load: No such layer"


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("std::bad_alloc"), RuntimeError("Failed to allocate memory for 8")],
)
def test_want_of_memory_comes_with_advice(error: Exception) -> None:
    with (
        pytest.raises(EngineError, match=r"cannot run: out of memory\. Use a smaller batch"),
        wrapped_as_engine_error("It cannot run"),
    ):
        raise error


def test_an_interrupt_passes() -> None:
    with pytest.raises(KeyboardInterrupt), wrapped_as_engine_error("It cannot run"):
        raise KeyboardInterrupt
