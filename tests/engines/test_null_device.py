"""The null device: it copies, waits, and answers by rote; nothing takes it that is not about speed alone."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner
from tiny_grounded import write_grounded_bundle

import fgdd_fast
from fgdd_engines.backends import DEVICES, all_devices, find_backend
from fgdd_engines.base import Array
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.errors import EngineError, SettingsError
from fgdd_engines.factory import open_engine
from fgdd_fast.cli import main

BATCH = 3


def feeds_of(bundle: Bundle, value: int) -> dict[str, Array]:
    preprocessing = bundle.preprocessing
    shape = (BATCH, preprocessing.height, preprocessing.width, 3)
    feeds: dict[str, Array] = {"images": np.full(shape, value, np.uint8)}
    return feeds if bundle.role == "foreground" else {**feeds, "labels": np.zeros(BATCH, np.int32)}


def test_answers_have_the_declared_shapes_and_depend_on_nothing(tmp_path: Path) -> None:
    for bundle in (tiny.foreground_bundle(tmp_path), tiny.teacher_bundle(tmp_path)):
        axes = {
            axis: BATCH if axis == "batch" else bundle.preprocessing.width
            for spec in bundle.inputs
            for axis in spec.shape
            if isinstance(axis, str)
        }
        with open_engine(bundle, device="null", axes=axes, threads=1) as engine:
            found, again = engine.run(feeds_of(bundle, 0)), engine.run(feeds_of(bundle, 255))
            for spec in engine.outputs:
                assert (found[spec.name].shape, found[spec.name].dtype) == (spec.shape, spec.dtype)
                assert np.array_equal(found[spec.name], again[spec.name])
                assert np.array_equal(found[spec.name][0], found[spec.name][-1])
                found[spec.name][:] = 0  # the caller's own
                assert np.array_equal(engine.run(feeds_of(bundle, 0))[spec.name], again[spec.name])
            assert engine.streams == 2
            assert "computes nothing" in engine.arithmetic
            with pytest.raises(EngineError, match="takes"):
                engine.run({**feeds_of(bundle, 0), "images": np.zeros((BATCH, 1, 1, 3), np.uint8)})
        with pytest.raises(EngineError, match="closed"):
            engine.run(feeds_of(bundle, 0))


def test_one_inference_at_a_time_takes_the_time_that_was_named(tmp_path: Path) -> None:
    bundle = tiny.foreground_bundle(tmp_path)
    with (
        open_engine(bundle, device="null:20", axes={"batch": BATCH}, threads=2) as engine,
        ThreadPoolExecutor(2) as executor,
    ):
        begin = time.perf_counter()
        list(executor.map(lambda _: engine.run(feeds_of(bundle, 0)), range(4)))
        assert time.perf_counter() - begin >= 0.08
    assert "20 ms an inference" in engine.arithmetic


def test_it_is_found_by_name_alone() -> None:
    assert find_backend("null").only_copies
    assert "null" not in DEVICES
    assert "null" not in all_devices()  # among which `auto` chooses
    for name in ("null:", "null:-1", "null:x", "null:12345"):
        with pytest.raises(SettingsError, match="does not end with the number"):
            find_backend(name)


def test_nothing_is_made_with_it(tmp_path: Path) -> None:
    data, teacher = tiny.write_squares(tmp_path / "data", 4), tiny.teacher_bundle(tmp_path)
    result = CliRunner().invoke(
        main,
        [
            *("distill", str(data), str(tmp_path / "out"), "--teacher", str(teacher.onnx)),
            *("--foreground", str(tiny.foreground_bundle(tmp_path).onnx), "--device", "null"),
            *("--store", str(tmp_path / "store"), "--size", "16", "--ipc", "1"),
        ],
    )
    assert result.exit_code == 1
    assert "computes nothing, so its results would mean nothing" in result.output
    assert not (tmp_path / "out").exists()
    runtime = fgdd_fast.RuntimeOptions(device="null:7")
    with pytest.raises(SettingsError, match="fgdd-fast bench DATA --device null:7"):
        fgdd_fast.check_teacher(teacher.onnx, data, runtime=runtime)


def test_batches_come_to_those_of_a_gpu_and_the_manifest_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tokenizers")
    monkeypatch.setattr(fgdd_fast.RuntimeOptions, "for_speed_alone", True)
    data, teacher = tiny.write_squares(tmp_path / "data", 5), tiny.teacher_bundle(tmp_path)
    runtime = fgdd_fast.RuntimeOptions(device="null", threads=2)
    for bundle, expected in (
        (tiny.foreground_bundle(tmp_path), {"batch": 32}),
        (write_grounded_bundle(tmp_path), {"batch": 32, "foreground_batch": 4}),
    ):
        _, manifest = fgdd_fast.distill(
            data,
            tmp_path / bundle.name,
            teacher=teacher.onnx,
            foreground=str(bundle.onnx),
            runtime=runtime,
            store=tmp_path / "store",
            size=16,
            ipc=1,
        )
        assert {name: v for name, v in manifest.settings.items() if name.endswith("batch")} == expected
