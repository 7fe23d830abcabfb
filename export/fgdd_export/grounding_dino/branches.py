"""Grounding DINO's two branches: a prompt's tokens to features, and pixels with these features to boxes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fgdd_export.grounding_dino.layers import MASKED, DecoderLayer, EncoderLayer, Prompt
from fgdd_export.grounding_dino.positions import (
    TEMPERATURE,
    Pyramid,
    ValidArea,
    logit,
    sinusoids,
    wavelengths,
)


class TextEncoder(nn.Module):
    """BERT and the projection to the transformer's channels, sharing the weights of transformers' `model`.

    Which tokens see each other and where each stands in its phrase are inputs: they follow from the tokens by
    operators that runtimes lack.
    """

    positions: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.bert = model.model.text_backbone
        self.projection = model.model.text_projection
        # A table rather than the sine itself: exact in every precision.
        ids = torch.arange(model.config.max_text_len, dtype=torch.float32)
        table = sinusoids(ids, wavelengths(model.config.d_model, TEMPERATURE))
        self.register_buffer("positions", table, persistent=False)

    def forward(self, input_ids: Tensor, self_mask: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens' features and their position embeddings, float32 [batch, tokens, channels] both.

        Args:
            input_ids: int32 [batch, tokens].
            self_mask: float32 [batch, tokens, tokens], 1 where a token (second axis) sees another (third).
            position_ids: int32 [batch, tokens], within the phrase.
        """
        first_segment = torch.zeros(1, int(input_ids.shape[1]), dtype=torch.int32)
        embedded = self.bert.embeddings(
            input_ids=input_ids, token_type_ids=first_segment, position_ids=position_ids
        )
        hidden = self.bert.encoder(embedded, (1 - self_mask[:, None]) * MASKED).last_hidden_state
        return self.projection(hidden), nn.functional.embedding(position_ids, self.positions)


IMPOSSIBLE = 20.0  # logit of a box that cannot be: 1 after the sigmoid, as infinity is, but finite
REFINEMENT_MARGIN = 1e-5  # boxes are refined as logits, this far away from 0 and 1


class Detector(nn.Module):
    """Finds what prompts ask for in images that fill a canvas from its top left.

    The same as transformers' model given the canvas and a mask of the pixels that the image fills. The images
    of a batch may differ in size and in what they are asked for, and do not depend on each other.

    Args:
        model: transformers' `GroundingDinoForObjectDetection`; but for the backbone, its weights are shared.
        height, width: of the canvas, pixels.
        mean, std: of each colour channel, for values in [0, 1].

    Attributes:
        places: cells of all levels of the feature pyramid.
    """

    scale: Tensor
    shift: Tensor
    rows: Tensor
    columns: Tensor
    wavelengths: Tensor

    def __init__(
        self, model: Any, height: int, width: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        network, config = model.model, model.config
        deviations = torch.tensor(std, dtype=torch.float64)
        self._constant("scale", 1 / (255 * deviations))
        self._constant("shift", -torch.tensor(mean, dtype=torch.float64) / deviations)
        self._constant("rows", torch.arange(height))
        self._constant("columns", torch.arange(width))
        # A copy, since Swin narrows its windows for good when it meets a picture smaller than them.
        self.backbone = copy.deepcopy(network.backbone.conv_encoder.model)
        self.projections = network.input_proj_vision
        sizes = self._level_sizes(height, width)
        self.places = sum(rows * columns for rows, columns in sizes)
        temperature = config.positional_embedding_temperature
        self.pyramid = Pyramid(sizes, (height, width), network.level_embed, temperature)
        self.encoder = nn.ModuleList(EncoderLayer(layer, sizes) for layer in network.encoder.layers)
        self.proposal_features = nn.Sequential(network.enc_output, network.enc_output_norm)
        self.proposal_head = network.encoder_output_bbox_embed
        self.queries = network.query_position_embeddings
        self.position_head = network.decoder.reference_points_head
        self._constant("wavelengths", wavelengths(config.d_model // 2, TEMPERATURE))
        self.decoder = nn.ModuleList(DecoderLayer(layer, sizes) for layer in network.decoder.layers)
        self.decoder_norm = network.decoder.layer_norm
        self.refinement_heads = network.decoder.bbox_embed[:-1]
        self.box_head = model.bbox_embed[-1]

    def _constant(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values.float(), persistent=False)

    def forward(
        self,
        canvas: Tensor,
        valid: Tensor,
        text_features: Tensor,
        text_positions: Tensor,
        text_mask: Tensor,
        text_self_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Detect.

        Args:
            canvas: uint8 [batch, height, width, 3], RGB; what lies outside the image does not matter.
            valid: int32 [batch, 2], rows and columns that the image fills, at least 1 each.
            text_features, text_positions: float32 [batch, tokens, channels], of `TextEncoder`.
            text_mask: float32 [batch, tokens], 1 for the prompt's tokens, 0 for those that fill up.
            text_self_mask: float32 [batch, tokens, tokens], as for `TextEncoder`.

        Returns:
            Logits float32 [batch, queries, tokens], far below 0 for tokens that fill up, and boxes float32
            [batch, queries, 4]: centre x, centre y, width and height as shares of the image.
        """
        area = self.pyramid(valid)
        prompt = Prompt(
            positions=text_positions,
            bias=((1 - text_mask) * MASKED)[:, None, None],
            self_bias=((1 - text_self_mask) * MASKED)[:, None],
        )
        maps = self._feature_maps(self._normalised(canvas, valid))
        vision = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1)
        text = text_features
        for layer in self.encoder:
            vision, text = layer(vision, text, area, prompt)
        boxes = self._proposals(vision, text, area, prompt)
        queries, boxes = self._decoded(boxes, vision, text, area, prompt)
        return queries @ text.transpose(1, 2) + prompt.bias[:, 0], boxes

    def _normalised(self, canvas: Tensor, valid: Tensor) -> Tensor:
        """Planes of the canvas, normalised, and 0 outside the image, which is padded after normalising."""
        # The cast comes first: TensorRT takes uint8 only as an input that a Cast reads.
        pixels = canvas.float() * self.scale + self.shift
        rows = (self.rows < valid[:, :1].float()).float()
        columns = (self.columns < valid[:, 1:].float()).float()
        return (pixels * rows[:, :, None, None] * columns[:, None, :, None]).permute(0, 3, 1, 2)

    def _feature_maps(self, planes: Tensor) -> list[Tensor]:
        """The levels of the feature pyramid: the backbone's, and smaller ones made of its last."""
        features = self.backbone(planes, return_dict=True).feature_maps
        maps = [self.projections[level](plane) for level, plane in enumerate(features)]
        source = features[-1]
        for projection in self.projections[len(features) :]:
            source = projection(source)
            maps.append(source)
        return maps

    def _level_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Rows and columns of the levels of a canvas."""
        with torch.no_grad():
            features = self.backbone(torch.zeros(1, 3, height, width), return_dict=True).feature_maps
        sizes = [(int(plane.shape[2]), int(plane.shape[3])) for plane in features]
        for _ in self.projections[len(sizes) :]:
            rows, columns = sizes[-1]
            sizes.append(((rows + 1) // 2, (columns + 1) // 2))
        return sizes

    def _proposals(self, vision: Tensor, text: Tensor, area: ValidArea, prompt: Prompt) -> Tensor:
        """The boxes of those places that are most like any token: float32 [batch, queries, 4]."""
        features = self.proposal_features(vision * area.possible)
        scores = (features @ text.transpose(1, 2) + prompt.bias[:, 0]).amax(-1)
        best = scores.topk(self.queries.num_embeddings, dim=1).indices[..., None]

        def of_best(values: Tensor) -> Tensor:
            return values.gather(1, best.expand(-1, -1, int(values.shape[2])))

        logits = self.proposal_head(of_best(features)) + of_best(area.proposals)
        return torch.where(of_best(area.possible) > 0.5, logits, IMPOSSIBLE).sigmoid()

    def _decoded(
        self, boxes: Tensor, vision: Tensor, text: Tensor, area: ValidArea, prompt: Prompt
    ) -> tuple[Tensor, Tensor]:
        """Queries and boxes after the last layer; each layer refines the boxes of the one before."""
        queries = self.queries.weight[None]
        shares = torch.cat((area.shares, area.shares), -1)[:, None]
        for index, layer in enumerate(self.decoder):
            references = boxes[:, :, None] * shares
            positions = self.position_head(self._box_embeddings(references[:, :, 0]))
            queries = layer(queries, positions, references, vision, text, area, prompt)
            if index < len(self.refinement_heads):
                boxes = _refined(boxes, self.refinement_heads[index](queries))
        queries = self.decoder_norm(queries)
        return queries, _refined(boxes, self.box_head(queries))

    def _box_embeddings(self, boxes: Tensor) -> Tensor:
        """Embed boxes in the order y, x, width, height: float32 [batch, queries, 2 * channels]."""
        column, row, width, height = boxes.unbind(-1)
        embedded = sinusoids(torch.stack((row, column, width, height), -1), self.wavelengths)
        return embedded.reshape(-1, int(boxes.shape[1]), 4 * 2 * len(self.wavelengths))


def _refined(boxes: Tensor, change: Tensor) -> Tensor:
    return (change + logit(boxes, REFINEMENT_MARGIN)).sigmoid()
