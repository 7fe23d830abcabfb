"""Networks that are ONNX files already, as bundles: `fgdd-fast bundle import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper, save

from fgdd_engines.bundle.bundle import load_bundle
from fgdd_export.graphs.graph import run_model
from fgdd_export.imported.bundle import import_bundle
from fgdd_fast.cli.main import main
from fgdd_fast.errors import FgddError

SIDE = 8
NAMES = "{0: 'blue', 1: 'green', 2: 'red'}"  # the order of the mean colours, turned round


def write_network(
    file: Path,
    *,
    shape: tuple[Any, ...] = ("n", 3, SIDE, SIDE),
    end: str = "Softmax",
    flat: int = 0,
    opset: int = 17,
    names: str = NAMES,
) -> Path:
    """A classifier that says which of three channels, each in -1 to 1, has the highest mean; or its plane."""
    axes = [2, 3] if shape[1] == 3 or shape[3] != 3 else [1, 2]
    nodes = [helper.make_node("Clip", ["images", "low", "high"], ["clipped"])]
    nodes += [helper.make_node("ReduceMean", ["clipped"], ["means"], axes=axes, keepdims=1)]
    nodes += [helper.make_node("Reshape", ["means", "flat"], ["flattened"])]
    nodes += [helper.make_node("MatMul", ["flattened", "turn"], ["scores"])]
    nodes += [helper.make_node(end, ["scores"], ["answer"])]
    weights = [
        *(numpy_helper.from_array(np.float32(value), name) for name, value in (("low", -1), ("high", 1))),
        numpy_helper.from_array(np.array([flat, 3]), "flat"),
        numpy_helper.from_array(np.fliplr(np.eye(3, dtype=np.float32)) * 9, "turn"),
    ]
    given = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [shape[0], 3])
    if end == "plane":
        nodes = [helper.make_node("ReduceMean", ["images"], ["answer"], axes=[1], keepdims=1)]
        given = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [shape[0], 1, *shape[2:]])
        weights = []
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "network", [images], [given], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, {"names": names})
    save(model, str(file))
    return file


@pytest.mark.parametrize(
    "network",
    [
        {},
        {"end": "Identity"},
        {"shape": ("n", SIDE, SIDE, 3)},
        {"shape": (1, 3, SIDE, SIDE), "flat": 1},  # exported for one image
        {"shape": ("n", "c", "h", "w")},
        {"opset": 13},
    ],
)
def test_a_classifier_becomes_a_teacher(tmp_path: Path, network: dict[str, Any]) -> None:
    file = write_network(tmp_path / "network.onnx", **network)
    told = {"layout": "nchw", "size": SIDE} if "c" in network.get("shape", ()) else {}
    import_bundle(file, tmp_path / "t.onnx", kind="teacher", normalisation="symmetric", **told)  # type: ignore
    bundle = load_bundle(tmp_path / "t.onnx", "teacher")
    assert bundle.classes == ("blue", "green", "red")
    assert bundle.preprocessing.pad_value == (128, 128, 128)
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    labels = np.array([0, 1, 2], np.int32)
    found = run_model(bundle.onnx.read_bytes(), {"images": images, "labels": labels})
    logits = 9 * ((images - 127.5) / 127.5).mean(axis=(1, 2))[:, ::-1]
    assert found["logits"] == pytest.approx(logits, abs=1e-4)
    assert found["loss"] == pytest.approx(np.log(np.exp(logits).sum(1)) - np.diag(logits), abs=1e-4)


def test_a_wrong_normalisation_is_found_on_the_users_images(tmp_path: Path) -> None:
    data = tiny.write_squares(tmp_path / "data", 6, ("red", "green"))
    file = write_network(tmp_path / "network.onnx", names="['red', 'blue', 'green']")
    save_as = ("-o", str(tmp_path / "t"), "--kind", "teacher", "--try", str(data), "--normalisation")
    swapped = CliRunner().invoke(main, ["bundle", "import", str(file), *save_as, "symmetric"])
    assert swapped.exit_code == 1
    assert "no better than guessing" in swapped.output
    write_network(file)
    for name, code in {"none": 1, "unit": 1, "symmetric": 0}.items():
        ran = CliRunner().invoke(main, ["bundle", "import", str(file), *save_as, name])
        assert ran.exit_code == code, ran.output
        assert (tmp_path / "t.onnx").exists() == (code == 0)
        assert code == 0 or "The normalisation seems to be another one" in ran.output
    assert CliRunner().invoke(main, ["teacher", "check", str(tmp_path / "t.onnx"), str(data)]).exit_code == 0


def test_a_plane_becomes_a_saliency_model(tmp_path: Path) -> None:
    file = write_network(tmp_path / "network.onnx", end="plane")
    import_bundle(file, tmp_path / "s.onnx", kind="saliency", normalisation="symmetric")
    bundle = load_bundle(tmp_path / "s.onnx", "foreground")
    assert bundle.source["sigmoid_added"]
    images = np.full((2, SIDE, SIDE, 3), 20, np.uint8)
    images[1, :, :3] = 220
    found = run_model(bundle.onnx.read_bytes(), {"images": images})
    assert found["occupancy"].tolist() == [0, 3 / SIDE]
    assert (found["mask"][1] > 127).tolist() == (images[1, ..., 0] > 99).tolist()


@pytest.mark.parametrize(
    ("network", "options", "problem"),
    [
        ({"shape": ("n", "c", SIDE, SIDE)}, {}, "does not tell which axis"),
        ({"shape": ("n", 3, "h", "w")}, {}, "images of any size"),
        ({}, {"size": 9}, "of 8 pixels a side, not of 9"),
        ({"shape": ("n", 3, SIDE, 9)}, {}, "not squares"),
        (
            {"shape": ("n", 4, SIDE, SIDE), "end": "plane"},
            {"layout": "nchw"},
            "is not nchw of three channels",
        ),
        ({"end": "Sigmoid"}, {}, "no choice of one class"),
        ({"end": "plane"}, {}, "no classifier"),
        ({}, {"kind": "saliency"}, "not one plane"),
        ({"names": ""}, {}, "does not name its 3 classes"),
        ({"names": "['one']"}, {}, "There are 1 class names"),
        ({}, {"output": "nothing"}, "has no tensor 'nothing'"),
    ],
)
def test_what_the_file_does_not_tell_is_asked_for(
    tmp_path: Path, network: dict[str, Any], options: dict[str, Any], problem: str
) -> None:
    file = write_network(tmp_path / "network.onnx", **network)
    with pytest.raises(FgddError, match=problem):
        import_bundle(file, tmp_path / "t.onnx", **{"kind": "teacher", "normalisation": "unit", **options})
    assert not (tmp_path / "t.onnx").exists()
    file.write_bytes(file.read_bytes()[:99])
    with pytest.raises(FgddError, match="is no ONNX model that can be read"):
        import_bundle(file, tmp_path / "t.onnx", kind="teacher", normalisation="unit")
