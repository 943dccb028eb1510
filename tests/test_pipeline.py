"""The Classifier and its four stages, on tiny trained models."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shelver import registry
from shelver.catalog.store import Catalog
from shelver.decide import POLICIES, Policy, Predictions, concatenate, policies_of, write_policies
from shelver.errors import InputError, ModelError, ShapeError
from shelver.folders import sha256_of
from shelver.images import decode, fit
from shelver.ngrams import Ngrams
from shelver.pipeline import (
    BATCH_PRODUCTS,
    Classifier,
    Emb2Pred,
    Embedding,
    ImageText2Pred,
    ImageText2Prob,
    Prepared,
    padded,
    pooled,
)
from shelver.pipeline.text import MAX_BAG
from shelver.product import Product, text_of

Draw = Callable[[tuple[int, int, int], int], bytes]
FIELDS = (
    "outcome",
    "answered",
    "node",
    "confidence",
    "level_confidence",
    "top_node",
    "top_confidence",
    "modality",
)


def assert_equal(first: Predictions, second: Predictions, *, atol: float = 0.0) -> None:
    for name in FIELDS:
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), atol=atol, rtol=0, err_msg=name)
    assert first.errors == second.errors
    assert first.picture_errors == second.picture_errors


@pytest.fixture(scope="module")
def products(tiny_catalog: Catalog) -> list[Product]:
    """All of the catalog's products, the kinds of input in turn, and some that cannot be answered."""
    found = [p for batch in tiny_catalog.products() for p in batch]
    odd = [
        Product("empty"),
        Product("only space", title=" \u200b <br> "),
        Product("unknown words", title="zzz qqq"),
        Product("no words", title="🎉 !!!"),
        Product("broken picture", images=(b"nonsense",)),
        Product(
            "one of two pictures broken", images=(b"nonsense", found[1].images[0] if found[1].images else b"")
        ),
        Product("picture not downloaded", image_urls=("https://example.com/a.jpg",)),
        Product("long", title="chair " * 100_000),
    ]
    return found + odd


@pytest.fixture(scope="module")
def both(both_model: Path) -> Classifier:
    return Classifier.open(both_model, threads=1)


def test_the_three_models_answer_what_they_learned(
    trained: Callable[[str, str], Path], tiny_catalog: Catalog
) -> None:
    test = [p for batch in tiny_catalog.products("train") for p in batch]
    for text, image, least in (("ngram", "lite0", 0.9), ("ngram", "none", 0.7), ("none", "colour", 0.4)):
        classifier = Classifier.open(trained(text, image), threads=1)
        said = classifier(test)
        right = [answer.node_id == p.node_id for answer, p in zip(said, test, strict=True)]
        assert np.mean(right) >= least, (text, image)


def test_the_classifier_is_its_four_stages(both: Classifier, products: list[Product]) -> None:
    assert both.text2emb is not None
    assert both.image2emb is not None
    assert both.manifest.text is not None
    text = both.text2emb([text_of(p, both.manifest.text.spec) for p in products])
    pictures, codes = both.decode([p.images for p in products])
    image = both.image2emb(pictures)
    by_hand = both.prob2pred(both.emb2prob(text, image), Policy(n_top=3))
    whole = both(products, policy=Policy(n_top=3))
    for name in FIELDS:
        np.testing.assert_allclose(getattr(by_hand, name), getattr(whole, name), atol=1e-5, err_msg=name)
    assert whole.picture_errors == codes


def test_the_compositions_agree_with_their_parts(both: Classifier, products: list[Product]) -> None:
    assert both.manifest.text is not None
    texts = [text_of(p, both.manifest.text.spec) for p in products]
    pictures, _ = both.decode([p.images for p in products])
    policy = Policy(n_top=3)
    probs = ImageText2Prob(both.text2emb, both.image2emb, both.emb2prob)
    whole = both(products, policy=policy)
    embedded = both.embed(products)
    answers = (
        both.prob2pred(probs(texts, pictures), policy),
        ImageText2Pred(probs, both.prob2pred)(texts, pictures, policy=policy),
        Emb2Pred(both.emb2prob, both.prob2pred)(embedded.text, embedded.image, policy=policy),
    )
    for said in answers:
        for name in FIELDS:
            np.testing.assert_allclose(getattr(said, name), getattr(whole, name), atol=1e-5, err_msg=name)


def test_a_changed_policy_changes_decisions_without_embedding_again_and_no_byte_of_the_core(
    both_model: Path, products: list[Product], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(both_model, model)

    def core() -> dict[str, str]:
        manifest = registry.read_manifest(model)
        return {name: sha256_of(model / name) for name in (*manifest.core_files(), registry.MANIFEST)}

    before = core()
    classifier = Classifier.open(model, threads=1)
    embedded = classifier.embed(products)
    emb2pred = Emb2Pred(classifier.emb2prob, classifier.prob2pred)
    paths = []
    for policy in (Policy(), Policy(decoder="climb", thresholds=(0.999,), unsure="review")):
        write_policies(model / POLICIES, {"search": policy})
        assert core() == before
        assert Classifier.open(model, threads=1).model_version == classifier.model_version
        chosen = policies_of(model)["search"]
        said = emb2pred(embedded.text, embedded.image, policy=chosen)
        whole = classifier(products, policy=chosen)
        assert [a.path for a in said] == [a.path for a in whole]
        paths.append([a.path for a in said])
    n_changed = sum(a != b for a, b in zip(*paths, strict=True))
    assert 0 < n_changed <= len(products)


def test_only_what_cannot_be_answered_carries_an_error(both: Classifier, products: list[Product]) -> None:
    said = both(products, policy=Policy(thresholds=(1.0,), unsure="review"))
    outcomes = {answer.outcome for answer in said}
    assert {"error", "review"} <= outcomes
    for answer in said:
        assert (answer.outcome == "error") == (answer.error is not None)


def test_the_answers_do_not_depend_on_the_batch(both: Classifier, products: list[Product]) -> None:
    together = both(products)
    one_by_one = concatenate([both([product]) for product in products[-40:]])
    last = np.arange(len(products) - 40, len(products))
    for name in FIELDS:
        np.testing.assert_allclose(
            getattr(together, name)[last], getattr(one_by_one, name), atol=1e-5, err_msg=name
        )
    assert together.errors[-40:] == one_by_one.errors
    many = both(products * 3)
    assert len(many) == 3 * len(products) > BATCH_PRODUCTS
    assert_equal(many, concatenate([together] * 3), atol=1e-5)


def test_eight_threads_get_the_answers_of_one(both: Classifier, products: list[Product]) -> None:
    alone = both(products)
    with ThreadPoolExecutor(8) as pool:
        for said in pool.map(lambda _: both(products), range(16)):
            assert_equal(said, alone)


def test_the_distribution_is_coherent(both: Classifier, products: list[Product]) -> None:
    embedded = both.embed(products)
    probs = both.emb2prob(embedded.text, embedded.image)
    tree, groups = both.taxonomy, both.emb2prob.groups
    answered = probs.modality > 0
    np.testing.assert_allclose(probs.nodes[answered][:, tree.level == 1].sum(axis=1), 1, atol=1e-5)
    here = groups.here(probs.nodes)
    for k in np.flatnonzero(~tree.is_leaf).tolist():
        below = probs.nodes[:, tree.children(k)].sum(axis=1)
        np.testing.assert_allclose(below + here[:, k], probs.nodes[:, k], atol=1e-5)
    assert (probs.nodes[~answered] == 0).all()


def test_each_product_says_what_it_was_answered_from_or_why_not(both: Classifier, products: list[Product]) -> None:
    said = {p.product_id: answer for p, answer in zip(products, both(products), strict=True)}
    codes = dict(zip((p.product_id for p in products), both(products).picture_errors, strict=True))
    assert said["empty"].error == said["only space"].error == "empty_product"
    assert said["broken picture"].error == "image_format"
    assert said["picture not downloaded"].error == "image_not_downloaded"
    assert said["unknown words"].modality == said["no words"].modality == said["long"].modality == "text"
    assert said["one of two pictures broken"].modality == "image"
    assert codes["one of two pictures broken"] == codes["broken picture"] == "image_format"
    assert said["p149"].modality == "text"
    assert codes["p149"] is not None
    assert {answer.modality for answer in said.values()} == {None, "text", "image", "both"}
    for answer in said.values():
        assert (answer.error is None) == (answer.node_id is not None) == (answer.modality is not None)


def test_a_model_of_one_modality_says_what_it_needs(text_model: Path, image_model: Path, draw: Draw) -> None:
    shown = Product("p", images=(draw((200, 0, 0), 1),))
    told = Product("t", title="bar stool")
    linked = Product("u", image_urls=("https://example.com/a.jpg",))
    reads = Classifier.open(text_model, threads=1)
    assert [answer.error for answer in reads([shown, told, linked, Product("e")])] == [
        "model_needs_text",
        None,
        "model_needs_text",
        "empty_product",
    ]
    sees = Classifier.open(image_model, threads=1)
    assert [answer.error for answer in sees([shown, told, linked, Product("e")])] == [
        None,
        "model_needs_image",
        "image_not_downloaded",
        "empty_product",
    ]


def test_no_products_give_no_answers(trained: Callable[[str, str], Path]) -> None:
    for text, image in (("ngram", "lite0"), ("ngram", "none"), ("none", "colour")):
        said = Classifier.open(trained(text, image), threads=1)([])
        assert len(said) == 0
        assert list(said) == []


def test_a_product_with_both_can_be_asked_with_either(both: Classifier, products: list[Product]) -> None:
    some = [p for p in products if p.title and p.images][:20]
    embedded = both.embed(some)
    without_picture = both([Product(p.product_id, title=p.title) for p in some])
    asked = both.prob2pred(both.emb2prob(embedded.text, None))
    for name in FIELDS:
        np.testing.assert_allclose(getattr(asked, name), getattr(without_picture, name), atol=1e-5, err_msg=name)
    assert (both.emb2prob(None, embedded.image).modality == 2).all()
    assert len(both.emb2prob(None, None).nodes) == 0


def test_embeddings_of_another_model_are_refused(both: Classifier) -> None:
    with pytest.raises(ShapeError, match="text embeddings"):
        both.emb2prob(Embedding.absent(3, 5), None)
    with pytest.raises(ShapeError, match="image embeddings"):
        both.emb2prob(Embedding.absent(3, both.emb2prob.text_width or 0), Embedding.absent(2, 1280))


def test_several_pictures_of_a_product_are_averaged_in_any_number(both: Classifier, draw: Draw) -> None:
    assert both.image2emb is not None
    pictures = [Image.open(io.BytesIO(draw((10 * i, 99, 200 - 10 * i), i))) for i in range(19)]
    alone = both.image2emb.pictures(pictures)
    embedded = both.image2emb([pictures[:1], [], pictures[1:]])
    assert embedded.present.tolist() == [True, False, True]
    np.testing.assert_allclose(embedded.values[0], alone[0], atol=1e-5)
    np.testing.assert_allclose(embedded.values[2], alone[1:].mean(axis=0), atol=1e-5)
    assert (embedded.values[1] == 0).all()


def test_pooling_is_a_mean_and_absent_rows_are_zero() -> None:
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    result = pooled(values, np.array([0, 2, 1, 0, 3]))
    assert result.present.tolist() == [False, True, True, False, True]
    expected = [
        [0, 0],
        values[:2].mean(axis=0).tolist(),
        values[2].tolist(),
        [0, 0],
        values[3:].mean(axis=0).tolist(),
    ]
    assert result.values.tolist() == expected
    assert pooled(np.zeros((0, 2), np.float32), np.zeros(3, np.intp)).present.tolist() == [False] * 3


def test_a_picture_is_looked_at_as_the_stage_says_and_a_broken_one_says_why(both: Classifier, draw: Draw) -> None:
    assert both.image2emb is not None
    ((view, spec),) = both.image2emb.looks
    data = draw((200, 30, 90), 3)
    made = both.image2emb.prepare(data)
    assert isinstance(made, Prepared)
    assert view == "fit"
    assert (made.looks[0] == fit(decode(data, target_px=(spec.width_px, spec.height_px)), spec)).all()
    assert both.image2emb.prepare(b"") == "image_empty"


def test_rectangles_hold_every_bag_once_and_stay_small() -> None:
    rng = np.random.default_rng(0)
    lengths = np.concatenate([rng.integers(0, 300, 400), [MAX_BAG * 2, 0, 1]])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    bags = Ngrams(
        rng.integers(0, 99, offsets[-1], dtype=np.int32), rng.random(offsets[-1], np.float32) + 1, offsets
    )
    wanted = np.flatnonzero(rng.random(len(lengths)) < 0.9)
    wanted = np.union1d(wanted, [400])
    seen = []
    width = 4
    for rows, ids, weights in padded(bags, wanted, width):
        assert ids.shape == weights.shape
        assert ids.dtype == np.int64
        assert len(rows) == 1 or ids.size * width <= MAX_BAG
        seen += rows.tolist()
        for row, row_ids, row_weights in zip(rows, ids, weights, strict=True):
            n = lengths[row]
            assert row_ids[:n].tolist() == bags.ids[offsets[row] : offsets[row + 1]].tolist()
            assert row_weights[:n].tolist() == bags.weights[offsets[row] : offsets[row + 1]].tolist()
            assert (row_weights[n:] == 0).all()
    assert sorted(seen) == wanted.tolist()
    assert list(padded(bags, np.zeros(0, np.intp), width)) == []


def test_a_folder_that_was_tampered_with_is_not_opened(text_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(text_model, copy)
    assert Classifier.open(copy, threads=1).model_version == Classifier.open(text_model, threads=1).model_version
    (copy / registry.EMB2PROB).write_bytes((copy / registry.EMB2PROB).read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"emb2prob\.onnx"):
        Classifier.open(copy)
    with pytest.raises(ModelError, match=r"no manifest\.json"):
        Classifier.open(tmp_path)


def test_one_product_instead_of_a_sequence_is_an_error_that_says_so(both: Classifier) -> None:
    with pytest.raises(InputError, match=r"classifier\(\[product\]\)"):
        both(Product("1", title="lamp"))  # type: ignore[arg-type]
