"""What can be chosen about a fine-tuning."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from shelver.images import ImageSpec
from shelver.train.tune.network import N_BLOCKS


class TuneSpec(BaseModel):
    """How the picture encoder is tuned.

    Attributes:
        epochs: passes over the pictures with the whole body learning.
        lr: peak step of AdamW; it rises over the share `warm_up` of the steps and then falls to zero.
        lr_of_size: whether `lr` is a share of a tensor's own size (the root mean square of its weights), which
            suits short trainings, or the same number for all tensors, which learns more in long ones on random
            crops (5e-4 is usual then).
        lr_decay: each block towards the input learns so many times as fast as the one behind it.
        weight_decay: AdamW's.
        batch_size: pictures a step.
        frozen_blocks: blocks that never change, beside the stem; of 16.
        label_smoothing: share of a label's weight that is spread over all labels.
        dropout: share of features hidden from the head.
        drop_path: share of pictures that skip the last residual block; earlier ones less, in proportion.
        train_scale: side of the pictures in training over that in use, rounded to multiples of 8 px.
        full_epochs: of the epochs, so many at the end see pictures of the size in use. A head that was fitted on
            small pictures alone errs on larger ones (untouched features of grocery: .38 instead of .56).
        mirror: see mirror images too. Not where left and right tell labels apart.
        shift_cells: pictures are moved by up to so many cells of the frozen part's output, for 3 blocks of 4 px.
        crops: see random crops with at least so large a share of the picture's area, their sides stretched by up
            to a third, in place of shifts; None for shifts. Slower, as the frozen blocks then run at every step,
            and better where products stand anywhere in a photo.
        cutmix: share of steps in which a rectangle of each picture comes from another one, with its part of the
            label.
        head_epochs: passes over the untouched features that the head is fitted with first.
        attributes: names of attributes of one value that are learned beside the category, so that the encoder
            keeps what they need: tuned on categories alone, it forgets colours.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=6, ge=0)
    full_epochs: int = Field(default=1, ge=0)
    lr: float = Field(default=3e-3, gt=0)
    lr_of_size: bool = True
    lr_decay: float = Field(default=0.93, gt=0, le=1)
    warm_up: float = Field(default=0.2, gt=0, lt=1)
    weight_decay: float = Field(default=1e-2, ge=0)
    batch_size: int = Field(default=32, ge=1)
    frozen_blocks: int = Field(default=3, ge=0, lt=N_BLOCKS)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    train_scale: float = Field(default=0.75, gt=0, le=1)
    mirror: bool = True
    shift_cells: int = Field(default=1, ge=0)
    crops: float | None = Field(default=None, gt=0, le=1)
    cutmix: float = Field(default=0.0, ge=0, le=1)
    head_epochs: int = Field(default=15, ge=1)
    attributes: tuple[str, ...] = ()

    def train_size(self, spec: ImageSpec) -> ImageSpec:
        """The size of the pictures in training, at least 32 px a side."""
        sides = [max(32, round(px * self.train_scale / 8) * 8) for px in (spec.height_px, spec.width_px)]
        # Unvalidated on purpose: only what is exported has to be a multiple of 32.
        return spec.model_copy(update={"height_px": sides[0], "width_px": sides[1]})
