"""LLaVA-like models with the image before the text, merged by concatenation.

transformers finds the image's place by comparing token ids and scatters the features there, which depends on data and keeps
``torch.export`` and ONNX from working. With the image first the place is known, so the features are simply put in front of the
text's embeddings. The result is the same (tested), and so are all parameters and nearly all of the work.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class TextAfterImage(nn.Module):
    """LLaVA: ``pixel_values`` are batch × 3 × side × side; ``input_ids`` are the text alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model
        self.config: Any = model.config

    def image_tokens(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embeddings of the image, batch × tokens × width."""
        return self.project(pixel_values)

    def project(self, images: torch.Tensor) -> torch.Tensor:
        """Patches of every image through the vision tower and the projector; the class token is left out."""
        inner: Any = self.model.model
        states = inner.vision_tower(images, output_hidden_states=True).hidden_states
        features: torch.Tensor = inner.multi_modal_projector(states[self.config.vision_feature_layer][:, 1:])
        return features

    def forward(self, input_ids: torch.Tensor, pixel_values: torch.Tensor | None = None, **further: Any) -> Any:
        """The model's own forward."""
        if pixel_values is None:
            return self.model(input_ids=input_ids, **further)
        image = self.image_tokens(pixel_values)
        embeds = torch.cat([image, self.model.get_input_embeddings()(input_ids)], dim=1)
        return self.model(inputs_embeds=embeds, **further)


class TiledTextAfterImage(TextAfterImage):
    """LLaVA-NeXT with a square image in 2 × 2 tiles: ``pixel_values`` are batch × 5 × 3 × side × side, the base view first."""

    def image_tokens(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The base view's tokens, then the tiles' put together, each row of patches closed by a newline token."""
        batch = pixel_values.shape[0]
        features = self.project(pixel_values.flatten(0, 1)).unflatten(0, (batch, 5))
        base, tiles = features[:, 0], features[:, 1:]
        side = round(base.shape[1] ** 0.5)
        rows = (
            tiles.reshape(batch, 2, 2, side, side, -1).permute(0, 1, 3, 2, 4, 5).reshape(batch, 2 * side, 2 * side, -1)
        )
        newline: torch.Tensor = self.model.model.image_newline
        rows = torch.cat([rows, newline.expand(batch, 2 * side, 1, -1)], dim=2)
        return torch.cat([base, rows.flatten(1, 2)], dim=1)
