# ruff: noqa: E402 - what needs PyTorch is imported once it is known to be there
"""Checkpoints of SAM 2: Meta's files, what is read of them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import tiny_sam2 as tiny
from hostile_pickles import Harmful
from safetensors.torch import save_file
from tiny_sam2 import assert_same_weights
from torch import Tensor
from transformers import Sam2Model, SamConfig

from fgdd_export.checkpoints.sam2_checkpoint import MEMORY_SINCE_2_1, SIZES, HieraSize, find_size, rename
from fgdd_export.sam2.network import MEAN, STD, load_sam2
from fgdd_fast.errors import BundleError

MINIATURE = HieraSize(8, 1, (1, 1, 1, 1), (2,))


class MetaFile:
    """Tensors with Meta's names, to be changed and written."""

    def __init__(self, path: Path, tensors: dict[str, Tensor]) -> None:
        self.path = path
        self.tensors = tensors

    def write(self) -> str:
        torch.save({"model": self.tensors}, self.path)
        return str(self.path)


@pytest.fixture(scope="module")
def meta_model() -> Sam2Model:
    """A network of a size that `meta_file` makes known."""
    torch.manual_seed(0)
    model = Sam2Model(MINIATURE.config())
    model.shared_image_embedding = model.prompt_encoder.shared_embedding  # one tensor in Meta's file
    return model


@pytest.fixture
def meta_file(meta_model: Sam2Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MetaFile:
    monkeypatch.setitem(SIZES, "miniature", MINIATURE)  # type: ignore[arg-type]
    tensors = tiny.meta_tensors(meta_model.state_dict())
    memory = ("memory_encoder.out_proj.weight", *MEMORY_SINCE_2_1)
    tensors.update({name: torch.zeros(1) for name in memory})
    return MetaFile(tmp_path / "sam2.1_hiera_miniature.pt", tensors)


def test_loads_a_file_of_meta(meta_model: Sam2Model, meta_file: MetaFile) -> None:
    loaded = load_sam2(meta_file.write())
    assert_same_weights(loaded.model, meta_model)
    assert (loaded.image_size, loaded.image_mean, loaded.image_std, loaded.unused) == (1024, MEAN, STD, ())
    assert not any(module.training for module in loaded.model.modules())
    assert not any(tensor.is_meta for tensor in (*loaded.model.parameters(), *loaded.model.buffers()))

    meta_file.tensors["head.weight"] = torch.zeros(2)
    meta_file.tensors = {name: tensor.double() for name, tensor in meta_file.tensors.items()}
    loaded = load_sam2(meta_file.write())
    assert loaded.unused == ("head.weight",)
    assert_same_weights(loaded.model, meta_model)

    path = meta_file.path.with_suffix(".safetensors")
    save_file({name: tensor.clone() for name, tensor in meta_file.tensors.items()}, path)
    assert_same_weights(load_sam2(str(path)).model, meta_model)


@pytest.mark.parametrize("size", SIZES)
def test_size_is_told_from_shapes(size: str) -> None:
    with torch.device("meta"):
        model = Sam2Model(SIZES[size].config())
    tensors = tiny.meta_tensors(model.state_dict())
    assert find_size(Path("file.pt"), tensors) == size
    renamed = rename(tensors)
    assert {name: tensor.shape for name, tensor in renamed.items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }


PATCHES = "image_encoder.trunk.patch_embed.proj.weight"
LAST = "sam_prompt_encoder.point_embeddings.3.weight"


@pytest.mark.parametrize(
    ("without", "with_", "problem"),
    [
        pytest.param((LAST,), {}, r"lacks 1 of .*point_embed", id="missing"),
        pytest.param(("no_mem_embed",), {}, r"lacks 1 of .*no_memory_embedding", id="missing parameter"),
        pytest.param((), {LAST: (1, 8)}, r"lacks 1 of .*point_embed", id="rows of other lengths"),
        pytest.param((), {"no_mem_embed": (1, 1, 7)}, r"wrong shape for 1 .*no_memory", id="other shape"),
        pytest.param((), {PATCHES: ()}, r"4 blocks, the first of width 0", id="no width"),
        pytest.param((), {PATCHES: (9, 3, 7, 7)}, r"4 blocks, the first of width 9", id="unknown width"),
        pytest.param(
            (), {"image_encoder.trunk.blocks.4.norm1.bias": (8,)}, r"has 5 blocks", id="unknown depth"
        ),
        pytest.param((PATCHES,), {}, r"holds no SAM 2.1", id="no SAM"),
        pytest.param((), {"image_encoder.patch_embed.proj.weight": (8, 3, 16, 16)}, r"SAM 1,", id="SAM 1"),
        pytest.param(MEMORY_SINCE_2_1, {}, r"SAM 2.0, .* lacks no_obj_embed_spatial", id="SAM 2.0"),
    ],
)
def test_unfitting_files_are_refused(
    meta_file: MetaFile, without: tuple[str, ...], with_: dict[str, tuple[int, ...]], problem: str
) -> None:
    for name in without:
        del meta_file.tensors[name]
    meta_file.tensors.update({name: torch.zeros(shape) for name, shape in with_.items()})
    with pytest.raises(BundleError, match=problem):
        load_sam2(meta_file.write())


def test_a_file_that_would_execute_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": {"no_mem_embed": Harmful(tmp_path / "made")}}, path)
    with pytest.raises(BundleError, match="more than tensors"):
        load_sam2(str(path))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [[1, 2], {"model": [1, 2]}, {"model": {1: torch.ones(1)}}, {}])
def test_files_without_named_tensors_are_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "sam2.pt"
    torch.save(content, path)
    with pytest.raises(BundleError, match=r"holds no"):
        load_sam2(str(path))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="There is no checkpoint"):
        load_sam2("sam2.1_hiera_tiny.pt")
    with pytest.raises(BundleError, match="There is no checkpoint"):
        load_sam2(str(tmp_path / "nowhere"))
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(BundleError):
        load_sam2(str(tmp_path / "text.pt"))
    SamConfig().save_pretrained(tmp_path)
    with pytest.raises(BundleError, match="is a sam, not a sam2 or sam2_video"):
        load_sam2(str(tmp_path))
    tiny.tiny_config().save_pretrained(tmp_path)
    with pytest.raises(BundleError):  # a configuration without weights
        load_sam2(str(tmp_path))
