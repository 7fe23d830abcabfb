"""OpenVINO: graphs in int8, what it refuses, and that a sample's result depends on the sample alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tiny_models import CLASSES, SIDE, tiny_bundle, tiny_description, tiny_feeds, tiny_graph

from fgdd_engines.base import Array, Engine, Precision
from fgdd_engines.bundle.bundle import Bundle, Variant, write_bundle
from fgdd_engines.factory import open_engine
from fgdd_engines.optional_imports import openvino_core
from fgdd_export.graphs.graph import serialise
from fgdd_export.precision.quantisation import FORMS, calibrate, quantise_calibrated
from fgdd_fast.errors import EngineError, SettingsError

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

PHOTOGRAPHS = Path(__file__).parents[3] / "shared" / "data" / "clothing" / "train"
BATCH = 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


def quantised(folder: Path, form: Variant) -> Bundle:
    """The tiny classifier's variant in int8."""
    model = onnx.load_model_from_string(tiny_graph())
    for place, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{place}"
    chosen = next(each for each in FORMS if each == form)
    calibration = calibrate(model, [tiny_feeds(16, seed=1)], (chosen,))
    graph = quantise_calibrated(model, calibration, chosen).model
    return write_bundle(
        replace(tiny_description(folder / f"tiny.{form}.onnx"), variant=form), serialise(graph)
    )


@pytest.fixture(scope="module", params=FORMS)
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return quantised(tmp_path_factory.mktemp("variant"), request.param)


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
    @pytest.mark.parametrize("precision", ["auto", "int8"])
    def test_it_runs_and_says_so(self, variant: Bundle, bundle: Bundle, precision: Precision) -> None:
        feeds = tiny_feeds(BATCH)
        with opened(variant, precision) as engine, opened(bundle, "fp32") as exact:
            assert ", CPU, int8 and " in engine.arithmetic
            found, expected = engine.run(feeds), exact.run(feeds)
        np.testing.assert_allclose(found["logits"], expected["logits"], atol=0.05)
        assert not np.array_equal(found["logits"], expected["logits"])

    def test_the_loss_is_exact_for_its_logits(self, variant: Bundle) -> None:
        feeds = tiny_feeds(BATCH)
        with opened(variant) as engine:
            results = engine.run(feeds)
        logits = results["logits"].astype(np.float64)
        losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(BATCH), feeds["labels"]]
        np.testing.assert_allclose(results["loss"], losses, rtol=1e-6, atol=1e-6)

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


class TestFp16:
    def test_only_where_it_is_native(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        on_processor(monkeypatch, CoreOf("FP32", "BF16"))
        with pytest.raises(SettingsError, match="does not compute in fp16 natively"):
            opened(bundle, "fp16")

    def test_it_is_asked_for(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        core = on_processor(monkeypatch, CoreOf("FP32", "FP16", hint="f32"))
        with pytest.raises(EngineError, match="in f32, though asked for fp16"):
            opened(bundle, "fp16")
        assert core.hints == ["f16"]

    def test_auto_does_not_take_it(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        on_processor(monkeypatch, CoreOf("FP32", "FP16"))
        with opened(bundle) as engine:
            assert engine.arithmetic.endswith(", fp32")


class TestWhatAnInt8ResultDependsOn:
    """A sample's result is the same to the last bit whatever surrounds it."""

    COUNT = 24

    def feeds(self) -> dict[str, Array]:
        paths = sorted(PHOTOGRAPHS.glob("*/*.jpg"))[:: 3068 // self.COUNT][: self.COUNT]
        if len(paths) < self.COUNT:
            pytest.skip("the photographs of clothes are not here")
        images = [cv2.resize(self.read(path), (SIDE, SIDE), interpolation=cv2.INTER_AREA) for path in paths]
        return {"images": np.stack(images), "labels": np.arange(self.COUNT, dtype=np.int32) % len(CLASSES)}

    def read(self, path: Path) -> NDArray[np.uint8]:
        pixels = cv2.imread(str(path))
        assert pixels is not None
        return np.asarray(pixels, np.uint8)

    def test_the_sample_alone(self, variant: Bundle) -> None:
        feeds = self.feeds()
        rng = np.random.default_rng(0)
        for batch in (1, 6):
            given: list[set[bytes]] = [set() for _ in range(self.COUNT)]
            for threads in (1, 2, 3):
                with opened(variant, batch=batch, threads=threads) as engine:
                    orders = [rng.permutation(self.COUNT).reshape(-1, batch) for _ in range(4)]
                    with ThreadPoolExecutor(threads) as pool:
                        self.collect(engine, pool, feeds, np.concatenate(orders), given)
            assert all(len(results) == 1 for results in given)

    def collect(
        self,
        engine: Engine,
        pool: ThreadPoolExecutor,
        feeds: dict[str, Array],
        parts: NDArray[np.int64],
        given: list[set[bytes]],
    ) -> None:
        def run(part: NDArray[np.int64]) -> dict[str, Array]:
            return engine.run({name: feed[part] for name, feed in feeds.items()})

        for part, outputs in zip(parts, pool.map(run, parts), strict=True):
            for row, sample in enumerate(part):
                given[sample].add(b"".join(array[row].tobytes() for array in outputs.values()))
