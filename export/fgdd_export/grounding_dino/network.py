"""Grounding DINO, from transformers' checkpoints to two networks that can be exported.

The text branch encodes a prompt once; the image branch takes its features with every image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from transformers.image_processing_base import ImageProcessingMixin
from transformers.utils.hub import cached_file

from fgdd_engines.base import TensorSpec
from fgdd_export.checkpoints.pretrained import Triple, load_config, load_model, triple
from fgdd_export.graphs.torch_export import Network
from fgdd_export.grounding_dino.branches import Detector, TextEncoder
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.models.grounded_tensors import DETECTOR_INPUTS, TEXT_INPUTS, TEXT_OUTPUTS, with_lengths

TOKENIZER = "tokenizer.json"
PREPROCESSING = "preprocessor_config.json"
# What the networks here are written for; the first of each is what every published checkpoint has.
SETTINGS: Mapping[str, tuple[object, ...]] = {
    "two_stage": (True,),
    "embedding_init_target": (True,),
    "query_dim": (4,),
    "position_embedding_type": ("sine",),
    "num_feature_levels": (4, 5, 3, 2),
}


@dataclass(frozen=True)
class GroundingDino:
    """A checkpoint with all that its use needs.

    Attributes:
        model: transformers' `GroundingDinoForObjectDetection`, float32, in evaluation mode.
        tokenizer: the content of its `tokenizer.json`.
        image_mean, image_std: of each colour channel, for values in [0, 1].
        shortest_edge, longest_edge: the resize rule, pixels: the shorter edge is brought to `shortest_edge`,
            unless the longer would then exceed `longest_edge`.
        unused: names of the checkpoint's tensors for which the network has no place.
    """

    model: Any
    tokenizer: str
    image_mean: Triple
    image_std: Triple
    shortest_edge: int
    longest_edge: int
    unused: tuple[str, ...]


def load_grounding_dino(checkpoint: str) -> GroundingDino:
    """Load a checkpoint of Grounding DINO.

    Args:
        checkpoint: a folder with `config.json`, `model.safetensors`, `tokenizer.json` and
            `preprocessor_config.json`, or a name of the hub.

    Raises:
        BundleError: it is of another architecture, or something is missing or unreadable.
    """
    config = load_config(checkpoint, ("grounding-dino",))
    for setting, values in SETTINGS.items():
        if getattr(config, setting) not in values:
            raise BundleError(
                f"The checkpoint {checkpoint} has {setting} = {getattr(config, setting)}",
                f"Only networks built like the published ones can be exported: {setting} = {values[0]}.",
            )
    tokenizer, preprocessing = _read_tokenizer(checkpoint), _read_preprocessing(checkpoint)
    loaded = load_model(checkpoint, transformers.GroundingDinoForObjectDetection)
    return GroundingDino(loaded.model, tokenizer, *preprocessing, unused=loaded.unused)


def text_network(loaded: GroundingDino, text_length: int) -> Network:
    """Declare the text branch, for prompts filled up to `text_length` tokens; SettingsError if too many."""
    config = loaded.model.config
    longest = min(config.max_text_len, config.text_config.max_position_embeddings)
    if not 1 <= text_length <= longest:
        raise SettingsError(
            f"The text length is {text_length}, and this Grounding DINO takes 1 to {longest} tokens"
        )
    lengths = {"tokens": text_length, "channels": config.d_model}
    return Network(
        name="grounding_dino_text",
        module=TextEncoder(loaded.model).eval(),
        inputs=with_lengths(TEXT_INPUTS, lengths),
        outputs=with_lengths(TEXT_OUTPUTS, lengths),
    )


def detector_network(loaded: GroundingDino, height: int, width: int, text_length: int) -> Network:
    """Declare the image branch.

    Args:
        height, width: of the canvas, pixels.
        text_length: as of the text branch.

    Raises:
        SettingsError: the canvas has fewer places than the network has queries.
    """
    config = loaded.model.config
    detector = Detector(loaded.model, height, width, loaded.image_mean, loaded.image_std).eval()
    if detector.places < config.num_queries:
        raise SettingsError(
            f"A canvas of {height} x {width} pixels has {detector.places} places to look at, fewer than the "
            f"{config.num_queries} queries of this Grounding DINO",
            "Choose a larger canvas.",
        )
    lengths = {"tokens": text_length, "channels": config.d_model}
    lengths |= {"canvas rows": height, "canvas columns": width}
    return Network(
        name="grounding_dino_detector",
        module=detector,
        inputs=with_lengths(DETECTOR_INPUTS[:-1], lengths),  # the threshold is for who takes boxes
        outputs=(
            TensorSpec("logits", "float32", ("batch", config.num_queries, text_length)),
            TensorSpec("boxes", "float32", ("batch", config.num_queries, 4)),
        ),
    )


def example_tensors(network: Network) -> tuple[torch.Tensor, ...]:
    """Inputs to export either network with: a batch of two, all ones, which every input allows."""
    return tuple(
        torch.ones(
            [2 if isinstance(length, str) else length for length in spec.shape],
            dtype=getattr(torch, spec.dtype),
        )
        for spec in network.inputs
    )


def _read_tokenizer(checkpoint: str) -> str:
    with _explained(checkpoint, TOKENIZER):
        text = Path(str(cached_file(checkpoint, TOKENIZER))).read_text(encoding="utf-8")
        Tokenizer.from_str(text)  # raises if it is none
    return text


def _read_preprocessing(checkpoint: str) -> tuple[Triple, Triple, int, int]:
    """Mean, standard deviation, shortest and longest edge; transformers' processor may need torchvision."""
    with _explained(checkpoint, PREPROCESSING):
        settings, _ = ImageProcessingMixin.get_image_processor_dict(checkpoint)
        factor = settings.get("rescale_factor", 1 / 255)
        if not math.isclose(factor, 1 / 255, rel_tol=1e-6):
            raise ValueError(f"it multiplies pixels by {factor}, not by 1/255")
        size = settings["size"]
        edges = int(size["shortest_edge"]), int(size["longest_edge"])
        return triple(settings["image_mean"]), triple(settings["image_std"]), *edges


@contextmanager
def _explained(checkpoint: str, name: str) -> Iterator[None]:
    """Turn what goes wrong while a file is read into an error that names it."""
    advice = f"Put the {name} that was published with the weights beside them."
    try:
        yield
    except OSError as error:
        raise BundleError(f"The checkpoint {checkpoint} has no readable {name}", advice) from error
    except Exception as error:  # tokenizers raises nothing narrower
        raise BundleError(
            f"The {name} of the checkpoint {checkpoint} is not usable: {error}", advice
        ) from error
