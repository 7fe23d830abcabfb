"""Variants decide as the fp32 graph does; nodes that would spoil decisions stay in fp32."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner, Result
from onnx import TensorProto
from tiny_convolutions import convolutional_teacher
from tiny_grounded import write_grounded_bundle

from fgdd_engines.bundle.bundle import Bundle, load_bundle, write_bundle
from fgdd_export.precision.conversion import Converted, convert_to_half, convert_to_int8
from fgdd_fast.cli import main
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.runtime.choose import runtime_for
from fgdd_fast.runtime.parity import Comparison
from fgdd_fast.runtime.sample_images import SampleImage, check_images, drawn_sample_images

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[SampleImage, ...]:
    data = tiny.write_squares(tmp_path_factory.mktemp("squares"), 4)
    return (*check_images(data, 12, {}), *drawn_sample_images(6, named=False))


def half(bundle: Bundle, precision: str, images: Sequence[SampleImage], *, force: bool = False) -> Converted:
    (converted,) = convert_to_half(bundle, precision, images, force=force)  # type: ignore[arg-type]
    return converted


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_half_precision_variant_lies_beside_its_bundle(
    precision: str, tmp_path: Path, images: Sequence[SampleImage]
) -> None:
    bundle = convolutional_teacher(tmp_path)
    converted = half(bundle, precision, images)
    variant = bundle.find_variant(precision)  # type: ignore[arg-type]
    assert variant == converted.bundle
    assert variant.onnx.name == f"teacher.{precision}.onnx"
    assert (variant.inputs, variant.outputs, variant.classes) == (
        bundle.inputs,
        bundle.outputs,
        bundle.classes,
    )
    assert variant.parity["images"] == len(images)
    assert variant.source["conversion"]["lowered"] == converted.lowered >= 3
    assert converted.parity.accepted
    assert converted.sensitive == ()
    stored = {
        node.name: tensor.data_type
        for tensor in onnx.load(variant.onnx).graph.initializer
        for node in onnx.load(variant.onnx).graph.node
        if node.op_type == "Conv" and tensor.name in node.input
    }
    half_type = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.BFLOAT16
    assert len(stored) == 3
    assert half_type in stored.values()


def test_what_overflows_in_fp16_stays_in_fp32_and_is_named(
    tmp_path: Path, images: Sequence[SampleImage]
) -> None:
    bundle = convolutional_teacher(tmp_path, loudness=1e5)
    converted = half(bundle, "fp16", images)
    assert "loud" in converted.sensitive
    assert converted.parity.accepted
    assert converted.bundle.source["conversion"]["guilty"] == list(converted.sensitive)
    assert (
        half(convolutional_teacher(tmp_path, loudness=1e5), "bf16", images).sensitive == ()
    )  # its range suffices


def test_int8_variants_for_both_runtimes(tmp_path: Path, images: Sequence[SampleImage]) -> None:
    bundle = convolutional_teacher(tmp_path)
    converted = convert_to_int8(bundle, images, images, force=True)
    assert [each.bundle.variant for each in converted] == ["int8", "int8-u8"]
    for each in converted:
        operators = [node.op_type for node in onnx.load(each.bundle.onnx).graph.node]
        assert "QuantizeLinear" in operators
        assert each.lowered >= 2
        assert each.parity.figures["loss_rank_correlation"] > 0.95
    cpu = runtime_for(bundle, "cpu", "int8")
    assert cpu.variants[bundle.sha256].variant == "int8-u8"
    assert Comparison(bundle, images).compare(cpu, batch=2).parity.figures["batch_loss_error"] < 1e-5


def convert(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


def test_the_command_says_what_it_wrote_and_how_it_compares(tmp_path: Path) -> None:
    data = tiny.write_squares(tmp_path / "data", 3)
    bundle = convolutional_teacher(tmp_path)
    result = convert(bundle.onnx, "--precision", "fp16", "--check", data, "--check-images", 6)
    assert result.exit_code == 0, result.output
    assert "nodes in fp16" in result.output
    assert "mean regret" in result.output
    assert load_bundle(tmp_path / "teacher.fp16.onnx").variant_of == bundle.sha256


def test_a_variant_that_decides_otherwise_is_written_only_with_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_nothing(*_: object, **__: object) -> None:
        raise BundleError("out of reach, whatever stays in fp32")

    monkeypatch.setattr("fgdd_export.precision.conversion.find_sensitive", find_nothing)
    bundle = convolutional_teacher(tmp_path, loudness=1e5)
    refused = convert(bundle.onnx, "--precision", "fp16", "--check-images", 4)
    assert refused.exit_code == 1
    assert "decides otherwise than in fp32" in " ".join(refused.output.split())
    assert "--force" in refused.output
    assert bundle.find_variant("fp16") is None
    result = convert(bundle.onnx, "--precision", "fp16", "--check-images", 4, "--accept-parity")
    assert result.exit_code == 0, result.output
    assert "--accept-parity is called --force now" in result.output
    assert "--accept-parity" not in convert("--help").output
    variant = bundle.find_variant("fp16")
    assert variant is not None
    assert variant.parity["figures"]["mean_loss_error"] is None  # it is infinite: fp16 overflowed


def test_what_cannot_be_converted_is_told(tmp_path: Path) -> None:
    bundle = convolutional_teacher(tmp_path)
    variant = replace(bundle, onnx=tmp_path / "variant.onnx", variant="bf16", variant_of="0" * 64)
    segmenter = replace(bundle, onnx=tmp_path / "segmenter.onnx", role="segmenter")
    for other in (variant, segmenter):
        write_bundle(other, bundle.onnx.read_bytes())
    for given, precision, problem in (
        (bundle, "int8", "--calibrate DATA"),
        (variant, "fp16", "is the bf16 variant"),
        (segmenter, "fp16", "no decision of the pipeline depends on it alone"),
    ):
        result = convert(given.onnx, "--precision", precision)
        assert result.exit_code == 1
        assert problem in result.output
    with pytest.raises(SettingsError, match="Convert it to fp16 or bf16"):
        convert_to_int8(write_grounded_bundle(tmp_path), (), (), force=True)


def test_what_is_written_does_not_depend_on_how_python_hashes(tmp_path: Path) -> None:
    bundle = convolutional_teacher(tmp_path)
    script = (
        "import json, sys, onnx\n"
        "from fgdd_export.precision.mixed_precision import lower_precision\n"
        "print(json.dumps(lower_precision(onnx.load(sys.argv[1]), 'fp16').kept))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script, str(bundle.onnx)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "2")
    }
    assert len(found) == 1
