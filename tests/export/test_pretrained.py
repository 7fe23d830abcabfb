"""Checkpoints that are not what they should be are refused before anything trusts them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fgdd_fast.errors import BundleError

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from fgdd_export.checkpoints.pretrained import load_config, load_model, provenance, read_tensors  # noqa: E402


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier, as transformers saves it."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny-bert"
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


class Harmful:
    """Unpickled, it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_saved_network_is_loaded_in_evaluation_mode(checkpoint: Path) -> None:
    loaded = load_model(str(checkpoint), transformers.BertModel)
    assert not loaded.model.training
    assert loaded.unused == ()
    assert loaded.model.dtype == torch.float32


@pytest.mark.parametrize(
    ("shown", "hub_shown", "fails"), [(True, True, False), (True, False, True), (False, True, False)]
)
def test_progress_bars_and_logging_are_left_as_they_were(
    checkpoint: Path, shown: bool, hub_shown: bool, fails: bool
) -> None:
    from huggingface_hub import utils as hub
    from transformers.utils import logging as bars

    (bars.enable_progress_bar if shown else bars.disable_progress_bar)()
    (hub.enable_progress_bars if hub_shown else hub.disable_progress_bars)()
    bars.set_verbosity_info()
    try:
        if fails:
            with pytest.raises(BundleError):
                load_config(str(checkpoint.parent))
        else:
            load_config(str(checkpoint))
        assert bars.is_progress_bar_enabled() is shown
        assert hub.are_progress_bars_disabled() is not hub_shown
        assert bars.get_verbosity() == bars.INFO
    finally:
        bars.enable_progress_bar()
        bars.set_verbosity_warning()


def test_another_architecture_is_refused(checkpoint: Path) -> None:
    with pytest.raises(BundleError, match="is a bert, not a sam2 or sam2_video"):
        load_config(str(checkpoint), ("sam2", "sam2_video"))


def test_missing_tensors_are_refused(copy: Path) -> None:
    state = transformers.BertModel.from_pretrained(copy).state_dict()
    state.pop("pooler.dense.weight")
    (copy / "model.safetensors").unlink()
    torch.save(state, copy / "pytorch_model.bin")
    with pytest.raises(BundleError, match=r"lacks 1 of .*: pooler.dense.weight"):
        load_model(str(copy), transformers.BertModel)


def test_tensors_of_another_shape_are_refused(copy: Path) -> None:
    config = (copy / "config.json").read_text()
    (copy / "config.json").write_text(config.replace('"vocab_size": 20', '"vocab_size": 21'))
    with pytest.raises(BundleError, match="wrong shape for 1"):
        load_model(str(copy), transformers.BertModel)


def test_tensors_without_a_place_are_reported(copy: Path) -> None:
    state = transformers.BertModel.from_pretrained(copy).state_dict()
    (copy / "model.safetensors").unlink()
    torch.save({**state, "more": torch.zeros(2)}, copy / "pytorch_model.bin")
    assert load_model(str(copy), transformers.BertModel).unused == ("more",)


@pytest.mark.parametrize("length", [0, 900])
def test_a_truncated_file_is_refused(copy: Path, length: int) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(BundleError, match="cannot be loaded"):
        load_model(str(copy), transformers.BertModel)


def test_a_pickle_that_would_execute_code_is_refused(copy: Path, tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    (copy / "model.safetensors").unlink()
    torch.save({"weight": Harmful(harm)}, copy / "pytorch_model.bin")
    with pytest.raises(BundleError, match="more than tensors"):
        load_model(str(copy), transformers.BertModel)
    with pytest.raises(BundleError, match="more than tensors"):
        read_tensors(copy / "pytorch_model.bin")
    assert not harm.exists()


def test_a_missing_folder_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no checkpoint") as caught:
        load_config(str(tmp_path / "nowhere" / "at" / "all"))
    assert "config.json" in caught.value.advice


def test_a_hub_name_without_a_network_says_how_to_use_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BundleError, match=r"some-owner/some-model cannot be loaded") as caught:
        load_config("some-owner/some-model")
    assert "path of a folder" in caught.value.advice


def test_files_of_tensors_are_read(tmp_path: Path) -> None:
    torch.save({"model": {"weight": torch.ones(2)}}, tmp_path / "one.pt")
    assert read_tensors(tmp_path / "one.pt")["model"]["weight"].tolist() == [1, 1]
    torch.save(torch.ones(2), tmp_path / "bare.pt")
    with pytest.raises(BundleError, match="no dictionary"):
        read_tensors(tmp_path / "bare.pt")
    with pytest.raises(BundleError, match="no checkpoint"):
        read_tensors(tmp_path / "absent.pt")


def test_provenance_names_weights_by_their_hash_and_no_path(checkpoint: Path) -> None:
    found = provenance(str(checkpoint))
    assert found["checkpoint"] == "tiny-bert"
    assert list(found["weights"]) == ["model.safetensors"]
    assert len(found["weights"]["model.safetensors"]) == 64
    assert provenance("owner/model") == {"checkpoint": "owner/model"}
