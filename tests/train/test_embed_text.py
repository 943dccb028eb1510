"""Text embeddings of frozen encoders are made once, and are those that the model folder's files give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from shelver.pipeline.text import Text2Emb
from shelver.product import TextSpec
from shelver.registry import TextPart, TextStage, TokenSpec
from shelver.train import embed_text
from shelver.train.embed_text import embed_texts
from shelver.train.export import Inputs, export

TEXTS: list[str | None] = ["red chair", None, "blue lamp blue", "red chair", "odd", "", "chair " * 30, None]


class Sum(nn.Module):
    """Adds up rows of a table; one word's row is beyond what float16 can hold."""

    def __init__(self) -> None:
        super().__init__()
        rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
        rows[4] = 1e6
        self.rows = nn.Parameter(rows, requires_grad=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return (self.rows[ids] * mask.unsqueeze(-1)).sum(dim=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files")
    probe: Inputs = {"ids": np.ones((2, 3), np.int64), "mask": np.ones((2, 3), np.float32)}
    free = {0: "products", 1: "tokens"}
    export(Sum(), path / "text2emb.onnx", [probe], output="embedding", dynamic={"ids": free, "mask": free})
    tokenizer = Tokenizer(
        models.WordLevel({"red": 0, "blue": 1, "chair": 2, "lamp": 3, "odd": 4, "?": 5}, unk_token="?")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path / "tokens.0.json"))
    return path


def part(source: str = "sum-v1", max_tokens: int = 8) -> TextPart:
    return TextPart(
        encoder="hf:sum",
        source=source,
        file="text2emb.onnx",
        width=4,
        tokens=TokenSpec(file="tokens.0.json", max_tokens=max_tokens, pad_id=0),
    )


def embedded(
    of: TextPart, folder: Path, texts: Sequence[str | None], cache: Path, said: list[str] | None = None
) -> NDArray[np.float16]:
    lines: list[str] = [] if said is None else said
    return embed_texts(of, folder, texts, cache=cache, threads=1, say=lines.append)


def test_the_vectors_are_those_of_the_files_in_the_order_of_the_texts(folder: Path, tmp_path: Path) -> None:
    got = embedded(part(), folder, TEXTS, tmp_path)
    wanted = Text2Emb.open(folder, TextStage(spec=TextSpec(), parts=(part(),)), threads=1)(TEXTS).values
    assert got.dtype == np.float16
    assert got.shape == (8, 4)
    finite = [row for row in range(8) if row != 4]
    np.testing.assert_allclose(got[finite], wanted[finite], atol=5e-3)
    np.testing.assert_array_equal(got[0], got[3])
    assert not got[[1, 5, 7]].any()
    assert got[4].tolist() == [65504] * 4  # never infinite


def test_what_was_made_once_is_not_made_again(folder: Path, tmp_path: Path) -> None:
    first = embedded(part(), folder, TEXTS, tmp_path)
    nowhere = tmp_path / "nowhere"  # without the encoder's files nothing new could be made
    np.testing.assert_array_equal(embedded(part(), nowhere, TEXTS[::-1], tmp_path), first[::-1])
    with pytest.raises(Exception, match="nowhere"):
        embedded(part(), nowhere, [*TEXTS, "blue chair"], tmp_path)
    again = embedded(part(), folder, [*TEXTS, "blue chair"], tmp_path)
    np.testing.assert_array_equal(again[:8], first)
    assert again[8].any()


def test_another_encoder_or_another_cut_has_a_cache_of_its_own(folder: Path, tmp_path: Path) -> None:
    long = embedded(part(), folder, ["chair " * 30], tmp_path)
    short = embedded(part(max_tokens=4), folder, ["chair " * 30], tmp_path)
    embedded(part(source="other"), folder, ["chair"], tmp_path)
    np.testing.assert_allclose(long, short * 2, atol=1e-2)
    names = sorted(path.name for path in (tmp_path / "embeddings").iterdir())
    assert names == ["other-8", "sum-v1-4", "sum-v1-8"]


def test_the_progress_is_told_with_the_time_left(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_text, "TELL_S", 0.0)
    monkeypatch.setattr(embed_text, "CHUNK_TEXTS", 2)
    said: list[str] = []
    embedded(part(), folder, TEXTS, tmp_path, said)
    assert len(said) == 3
    assert said[0].startswith("embedding texts with hf:sum: 2 of 5, ")
    assert said[-1].endswith("/s, 0 s left")
    embedded(part(), folder, TEXTS, tmp_path, said)
    assert len(said) == 3  # all of them are cached


def test_a_lone_surrogate_is_a_text_like_any_other() -> None:
    assert len(embed_text.text_key("a\ud800b")) == 32
    assert embed_text.text_key("a\ud800b") != embed_text.text_key("ab")
