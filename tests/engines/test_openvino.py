"""OpenVINO: in which precision it computes, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from every_engine import write_variant

from fgdd_engines.base import Engine, Precision
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.factory import open_engine
from fgdd_engines.optional_imports import openvino_core
from fgdd_export.precision.quantisation import FORMS
from fgdd_fast.errors import EngineError, SettingsError

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

BATCH = 4


@pytest.fixture(scope="module", params=FORMS)
def variant(request: pytest.FixtureRequest, bundle: Bundle) -> Bundle:
    return write_variant(bundle, request.param)


def opened(bundle: Bundle, precision: Precision = "auto", *, batch: int = BATCH, threads: int = 2) -> Engine:
    return open_engine(bundle, device="openvino", precision=precision, axes={"batch": batch}, threads=threads)


class CoreOf:
    """OpenVINO's Core on a processor that can do what is said here."""

    def __init__(self, *capabilities: str, hint: str | None = None) -> None:
        self._core = openvino_core()
        self._capabilities = list(capabilities)
        self._hint = hint
        self.hints: list[str] = []

    def get_property(self, device: str, name: str) -> Any:
        if name == "OPTIMIZATION_CAPABILITIES":
            return self._capabilities
        return self._core.get_property(device, name)

    def compile_model(self, model: Any, device: str, settings: dict[str, Any]) -> Any:
        self.hints.append(settings["INFERENCE_PRECISION_HINT"])
        changed = settings if self._hint is None else {**settings, "INFERENCE_PRECISION_HINT": self._hint}
        return self._core.compile_model(model, device, changed)


def on_processor(monkeypatch: pytest.MonkeyPatch, core: CoreOf) -> CoreOf:
    monkeypatch.setattr("openvino.Core", lambda: core)
    return core


class TestInt8:
    def test_what_is_not_int8_is_in_fp32(self, variant: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        core = on_processor(monkeypatch, CoreOf("FP32", "INT8", "BF16"))
        with opened(variant) as engine:
            assert engine.arithmetic.endswith("int8 and fp32")
        assert core.hints == ["f32"]

    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    def test_such_a_graph_has_no_other_precision(self, variant: Bundle, precision: Precision) -> None:
        with pytest.raises(SettingsError, match=f"in int8, not in {precision}"):
            opened(variant, precision)

    def test_an_fp32_graph_is_not_quantised_on_the_way(self, bundle: Bundle) -> None:
        with pytest.raises(SettingsError) as caught:
            opened(bundle, "int8")
        assert f"fgdd-fast convert {bundle.onnx} --precision int8 --calibrate DATA" in caught.value.advice

    def test_a_graph_that_only_calls_itself_int8_is_refused(self, bundle: Bundle) -> None:
        with pytest.raises(EngineError, match="without a layer in int8"):
            opened(replace(bundle, variant="int8-u8"))


class TestPrecision:
    @pytest.mark.parametrize("precision", ["fp16", "bf16"])
    def test_only_what_is_native(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, precision: Precision
    ) -> None:
        on_processor(monkeypatch, CoreOf("FP32"))
        with pytest.raises(SettingsError, match=f"does not compute in {precision} natively"):
            opened(bundle, precision)

    @pytest.mark.parametrize("precision", ["fp16", "bf16"])
    def test_another_than_was_asked_for_is_refused(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, precision: Precision
    ) -> None:
        core = on_processor(monkeypatch, CoreOf("FP32", "FP16", "BF16", hint="f32"))
        with pytest.raises(EngineError, match=f"in f32, though asked for {precision}"):
            opened(bundle, precision)
        assert core.hints == [precision.replace("fp", "f")]

    @pytest.mark.parametrize(
        ("capabilities", "asked"),
        [(("FP32", "FP16"), "fp32"), (("FP32",), "fp32"), (("FP32", "BF16"), "bf16")],
    )
    def test_auto_takes_bf16_where_it_is_native(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capabilities: tuple[str, ...], asked: str
    ) -> None:
        core = on_processor(monkeypatch, CoreOf(*capabilities))
        if asked == "fp32" or "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            with opened(bundle) as engine:
                assert engine.arithmetic.endswith(asked)
        assert set(core.hints) <= {asked.replace("fp", "f")}
