"""A PyTorch network becomes the ONNX graph that it is declared to be."""

from __future__ import annotations

import numpy as np
import pytest

from fgdd_engines.base import TensorSpec
from fgdd_fast.errors import BundleError

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from fgdd_export.graphs.graph import OPSET, run_model, serialise, tensor_specs  # noqa: E402
from fgdd_export.graphs.torch_export import Network, export_network  # noqa: E402


class Mixed(torch.nn.Module):
    """Normalises bytes, flattens, and multiplies: with a shape that a careless trace would fix."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(12, 3)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.to(torch.float32).reshape(images.shape[0], -1) / 255
        return self.dropout(self.layer(flat))


def network(outputs: tuple[TensorSpec, ...]) -> Network:
    return Network("mixed", Mixed().eval(), (TensorSpec("images", "uint8", ("batch", 2, 2, 3)),), outputs)


def test_the_graph_has_the_declared_tensors_and_any_batch() -> None:
    declared = network((TensorSpec("scores", "float32", ("batch", 3)),))
    exported = export_network(declared, (torch.zeros(2, 2, 2, 3, dtype=torch.uint8),))
    assert tensor_specs(exported.model.graph.input) == declared.inputs
    assert tensor_specs(exported.model.graph.output) == declared.outputs
    assert exported.model.opset_import[0].version == OPSET
    assert 0 < exported.nodes <= exported.nodes_before
    assert not declared.module.training
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 3)).astype(np.uint8)
    for batch in (1, 2, 3):
        found = run_model(serialise(exported.model), {"images": images[:batch]})["scores"]
        with torch.no_grad():
            expected = declared.module(torch.from_numpy(images[:batch])).numpy()
        assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("spec", [("float16", ("batch", 3)), ("float32", ("batch", 3, 1))])
def test_a_false_declaration_is_refused(spec: tuple[str, tuple[int | str, ...]]) -> None:
    with pytest.raises(BundleError, match="should have scores"):
        export_network(network((TensorSpec("scores", *spec),)), (torch.zeros(2, 2, 2, 3, dtype=torch.uint8),))
