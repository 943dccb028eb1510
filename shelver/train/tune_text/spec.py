"""What can be chosen about the fine-tuning of a text encoder."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TextTuning(BaseModel):
    """How an encoder is tuned.

    Attributes:
        epochs: over the texts, with encoder and head. head_epochs: before that, with the head alone.
        lr: peak learning rate of the encoder; deep transformers want less, 2e-5 to 1e-4. head_lr: of the head.
        weight_decay: of AdamW.
        dropout: of the features that the head sees.
        label_smoothing: share of each label that is spread over all.
        warm_up: share of the steps in which the learning rate rises.
        batch_size: texts of a step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=4, ge=1)
    head_epochs: int = Field(default=8, ge=0)
    lr: float = Field(default=3e-4, gt=0)
    head_lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    warm_up: float = Field(default=0.15, gt=0, lt=1)
    batch_size: int = Field(default=32, ge=1)
