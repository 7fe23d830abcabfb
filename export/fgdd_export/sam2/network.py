"""SAM 2.1 as two networks: an image encoder, and a mask decoder that is prompted with boxes.

Paper: Ravi et al., "SAM 2: Segment Anything in Images and Videos" (arXiv 2408.00714). The weights and layers
are those of transformers' `Sam2Model`, which stays as it is; only what ties them together is written anew.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ImageProcessingMixin, Sam2Model

from fgdd_engines.base import TensorSpec
from fgdd_export.checkpoints.pretrained import Triple, load_config, load_model, triple
from fgdd_export.checkpoints.sam2_checkpoint import is_meta_checkpoint, load_meta_checkpoint
from fgdd_export.graphs.torch_export import Network
from fgdd_fast.errors import BundleError, SettingsError

# ImageNet's, as in every published checkpoint.
MEAN: Triple = (0.485, 0.456, 0.406)
STD: Triple = (0.229, 0.224, 0.225)
CELL = 32  # pixels of the encoder's coarsest cell, and of the window whose position embedding is repeated
PROCESSOR_SETTINGS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Sam2:
    """A SAM 2.1 with its weights.

    Attributes:
        model: transformers' network, in float32 and evaluation mode.
        image_size: pixels of each side of the square images that it takes.
        image_mean, image_std: of each colour channel, for values in [0, 1].
        unused: names of the checkpoint's tensors for which the network has no place, but for the memory of
            videos.
    """

    model: Sam2Model
    image_size: int
    image_mean: Triple
    image_std: Triple
    unused: tuple[str, ...]

    def at_size(self, image_size: int | None) -> Sam2:
        """The same weights for images of another size; itself where None, or its own, is asked for.

        What depends on the size follows it, as in transformers and in Meta's code when they are configured
        for another one: the position embedding is enlarged to fewer cells and repeated for fewer windows,
        windows keep their side and are padded where they do not fit, and prompts and the image's places are
        encoded as shares of the smaller square.

        Args:
            image_size: pixels of each side: a multiple of 32, up to the checkpoint's own size.

        Raises:
            SettingsError: it is another number.
        """
        if image_size in (None, self.image_size):
            return self
        if image_size not in range(CELL, self.image_size, CELL):
            raise SettingsError(
                f"This SAM 2.1 takes images of {self.image_size} pixels, or fewer in steps of {CELL}, "
                f"not {image_size}",
                f"Such as {self.image_size // 2 // CELL * CELL}.",
            )
        tensors = (*self.model.parameters(), *self.model.buffers())
        model: Any = copy.deepcopy(
            self.model, {id(tensor): tensor for tensor in tensors}
        )  # weights are shared
        prompts, side = model.prompt_encoder, image_size // 16
        model.backbone_feature_sizes = [[side * scale] * 2 for scale in (4, 2, 1)]
        prompts.input_image_size = image_size
        prompts.image_embedding_size = (side, side)
        prompts.mask_input_size = (4 * side, 4 * side)
        return replace(self, model=model, image_size=image_size)


def load_sam2(checkpoint: str) -> Sam2:
    """Load a SAM 2.1.

    Args:
        checkpoint: a folder or a name of the hub, of transformers' `Sam2Model` or `Sam2VideoModel`; or a file
            of Meta's, such as `sam2.1_hiera_tiny.pt`.

    Raises:
        BundleError: it is missing, damaged, incomplete, executable, or of another architecture.
    """
    if is_meta_checkpoint(checkpoint):
        loaded, mean, std = load_meta_checkpoint(Path(checkpoint)), MEAN, STD
    else:
        config = load_config(checkpoint, ("sam2", "sam2_video"))
        if not getattr(config, "enable_occlusion_spatial_embedding", True):
            raise BundleError(
                f"The checkpoint {checkpoint} is of SAM 2.0, not of SAM 2.1",
                "Name one of SAM 2.1, such as facebook/sam2.1-hiera-tiny.",
            )
        loaded = load_model(checkpoint, Sam2Model)
        mean, std = _normalisation(checkpoint)
    size = loaded.model.config.prompt_encoder_config.image_size
    return Sam2(loaded.model, size, mean, std, loaded.unused)


def _normalisation(checkpoint: str) -> tuple[Triple, Triple]:
    """Mean and standard deviation, from the checkpoint's settings of an image processor if it has any."""
    damaged = BundleError(f"The checkpoint {checkpoint} has a damaged {' or '.join(PROCESSOR_SETTINGS)}")
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(checkpoint)
    except (OSError, ValueError) as error:  # there are none, or they are no JSON
        if any(Path(checkpoint, name).exists() for name in PROCESSOR_SETTINGS):
            raise damaged from error
        return MEAN, STD
    try:
        return triple(settings.get("image_mean", MEAN)), triple(settings.get("image_std", STD))
    except (AttributeError, TypeError, ValueError) as error:
        raise damaged from error


class ImageEncoder(nn.Module):
    """From an image to the embeddings that the mask decoder takes.

    The position embedding is a constant, because the image's size is; transformers enlarges it with every
    image. Weights are shared with `sam2.model`.
    """

    pixel_scale: Tensor
    pixel_shift: Tensor
    position_embedding: Tensor
    no_memory_embedding: Tensor

    def __init__(self, sam2: Sam2) -> None:
        super().__init__()
        vision, decoder = sam2.model.vision_encoder, sam2.model.mask_decoder
        self.patch_embed = vision.backbone.patch_embed
        self.blocks = vision.backbone.blocks
        self.stage_ends = tuple(vision.backbone.stage_ends)
        self.neck = vision.neck
        self.project_0 = decoder.conv_s0
        self.project_1 = decoder.conv_s1
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (sam2.image_mean, sam2.image_std))
        self.register_buffer("pixel_scale", 1 / (255 * std))
        self.register_buffer("pixel_shift", -mean / std)
        self.register_buffer("position_embedding", _position_embedding(vision.backbone, sam2.image_size))
        self.register_buffer(
            "no_memory_embedding", sam2.model.no_memory_embedding.detach().reshape(1, -1, 1, 1)
        )
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode images.

        Args:
            images: uint8 [batch, S, S, 3], RGB.

        Returns:
            float32 image embedding [batch, 256, S / 16, S / 16], and two maps of finer detail,
            [batch, 32, S / 4, S / 4] and [batch, 64, S / 8, S / 8].
        """
        # The cast comes first: TensorRT takes uint8 only as an input that a Cast reads.
        pixels = images.to(torch.float32).permute(0, 3, 1, 2) * self.pixel_scale + self.pixel_shift
        hidden = self.patch_embed(pixels) + self.position_embedding
        stages = []
        for index, block in enumerate(self.blocks):
            hidden = block(hidden)
            if index in self.stage_ends:
                stages.append(hidden)
        _, coarse, middle, fine = self.neck(stages)[0]
        return coarse + self.no_memory_embedding, self.project_0(fine), self.project_1(middle)


def _position_embedding(backbone: Any, image_size: int) -> Tensor:
    """Float32 [1, rows, columns, channels]: one embedding enlarged to the image, and one for every window.

    Paper: Bolya et al., "Window Attention is Bugged" (arXiv 2311.05613).
    """
    side = image_size // backbone.config.patch_stride[0]
    with torch.no_grad():
        whole = functional.interpolate(backbone.pos_embed, size=(side, side), mode="bicubic")
        windows = side // backbone.pos_embed_window.shape[-1]
        embedding: Tensor = whole + backbone.pos_embed_window.repeat(1, 1, windows, windows)
        return embedding.permute(0, 2, 3, 1).contiguous()


class MaskDecoder(nn.Module):
    """From embeddings of images and boxes to a mask for each box.

    Every box is decoded as an image of its own with one prompt, so that the number of boxes may vary.
    Weights are shared with `sam2.model`.
    """

    image_positions: Tensor
    corner_embedding: Tensor
    padding_embedding: Tensor
    no_mask_embedding: Tensor

    def __init__(self, sam2: Sam2) -> None:
        super().__init__()
        prompts = sam2.model.prompt_encoder
        self.image_size = sam2.image_size
        self.decoder = sam2.model.mask_decoder
        self.encoding = prompts.shared_embedding
        self.register_buffer("image_positions", sam2.model.get_image_wide_positional_embeddings())
        # Labels 2 and 3 are a box's first and second corner. A point that is none ends each prompt.
        self.register_buffer("corner_embedding", prompts.point_embed.weight.detach()[2:4])
        self.register_buffer(
            "padding_embedding", prompts.not_a_point_embed.weight.detach().reshape(1, 1, 1, -1)
        )
        self.register_buffer("no_mask_embedding", prompts.no_mask_embed.weight.detach().reshape(1, -1, 1, 1))
        self.eval()

    def forward(
        self, image_embedding: Tensor, high_resolution_0: Tensor, high_resolution_1: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Segment what is in each box.

        Args:
            image_embedding, high_resolution_0, high_resolution_1: from `ImageEncoder`.
            boxes: float32 [batch, boxes, 4]; left, top, right, bottom in pixels of the S x S image.

        Returns:
            Mask logits, float32 [batch, boxes, S / 4, S / 4], above 0 where the object is, and the overlap
            with the true mask (IoU) that the network expects, float32 [batch, boxes].
        """
        batch, count = boxes.shape[:2]

        def for_each_box(features: Tensor) -> Tensor:
            return features.unsqueeze(1).expand(-1, count, -1, -1, -1).flatten(0, 1)

        masks, overlaps, _, _ = self.decoder(
            image_embeddings=for_each_box(image_embedding),
            image_positional_embeddings=self.image_positions,
            sparse_prompt_embeddings=self._embed(boxes),
            dense_prompt_embeddings=self.no_mask_embedding,
            multimask_output=False,
            high_resolution_features=[for_each_box(high_resolution_0), for_each_box(high_resolution_1)],
        )
        return masks[:, 0, 0].unflatten(0, (batch, count)), overlaps[:, 0, 0].unflatten(0, (batch, count))

    def _embed(self, boxes: Tensor) -> Tensor:
        """Boxes [batch, boxes, 4] to prompts [batch * boxes, 1, 3, channels]."""
        centred = boxes.reshape(-1, 1, 2, 2) + 0.5  # pixels are addressed by their centres
        corners = centred / self.image_size
        embedded = self.encoding(corners) + self.corner_embedding
        return torch.cat([embedded, self.padding_embedding.expand(embedded.shape[0], -1, -1, -1)], dim=2)


def encoder_network(sam2: Sam2) -> Network:
    """Declare the image encoder."""
    side = sam2.image_size
    return Network(
        name="sam2_image_encoder",
        module=ImageEncoder(sam2),
        inputs=(TensorSpec("images", "uint8", ("batch", side, side, 3)),),
        outputs=_embeddings(sam2),
    )


def encoder_example(sam2: Sam2) -> tuple[Tensor, ...]:
    """Inputs to trace the image encoder with."""
    return (torch.zeros(2, sam2.image_size, sam2.image_size, 3, dtype=torch.uint8),)


def decoder_network(sam2: Sam2) -> Network:
    """Declare the mask decoder."""
    side = sam2.image_size // 4
    return Network(
        name="sam2_mask_decoder",
        module=MaskDecoder(sam2),
        inputs=(*_embeddings(sam2), TensorSpec("boxes", "float32", ("batch", "boxes", 4))),
        outputs=(
            TensorSpec("masks", "float32", ("batch", "boxes", side, side)),
            TensorSpec("iou", "float32", ("batch", "boxes")),
        ),
    )


def decoder_example(sam2: Sam2) -> tuple[Tensor, ...]:
    """Inputs to trace the mask decoder with; two images and three boxes cannot be taken for one another."""
    embeddings = (torch.zeros(2, *map(int, spec.shape[1:])) for spec in _embeddings(sam2))
    return (*embeddings, torch.zeros(2, 3, 4))


def _embeddings(sam2: Sam2) -> tuple[TensorSpec, ...]:
    """What the encoder hands to the decoder."""
    channels, side = sam2.model.hidden_dim, sam2.image_size
    return (
        TensorSpec("image_embedding", "float32", ("batch", channels, side // 16, side // 16)),
        TensorSpec("high_resolution_0", "float32", ("batch", channels // 8, side // 4, side // 4)),
        TensorSpec("high_resolution_1", "float32", ("batch", channels // 4, side // 8, side // 8)),
    )
