"""Grounding DINO's text branch: from a prompt's tokens to features, which serve every image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fgdd_export.grounding_dino.layers import MASKED
from fgdd_export.grounding_dino.positions import TEMPERATURE, sinusoids, wavelengths


class TextEncoder(nn.Module):
    """BERT and the projection to the transformer's channels.

    Which tokens see each other and where each stands in its phrase are inputs: they follow from the tokens
    by operators that runtimes lack.

    Args:
        model: transformers' `GroundingDinoForObjectDetection`; its weights are shared, not copied.
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
        """Encode prompts.

        Args:
            input_ids: int32 [batch, tokens].
            self_mask: float32 [batch, tokens, tokens], 1 where a token (second axis) sees another (third).
            position_ids: int32 [batch, tokens], within the phrase.

        Returns:
            The tokens' features and their position embeddings, float32 [batch, tokens, channels] both.
        """
        first_segment = torch.zeros(1, int(input_ids.shape[1]), dtype=torch.int32)
        embedded = self.bert.embeddings(
            input_ids=input_ids, token_type_ids=first_segment, position_ids=position_ids
        )
        hidden = self.bert.encoder(embedded, (1 - self_mask[:, None]) * MASKED).last_hidden_state
        return self.projection(hidden), nn.functional.embedding(position_ids, self.positions)
