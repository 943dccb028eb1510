"""The tree over HTTP, and its search beside one that looks at every node."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from shelver.service.models import search
from shelver.service.models.search import NAMES, Search, search_of, words_of
from shelver.service.state import Service
from shelver.taxonomy import Taxonomy, read_taxonomy

As = Callable[..., TestClient]
WORDS = ["chair", "chairs", "charcoal", "bar", "barn", "Möbel", "mobile", "été", "Straße", "lamp", "toy", "car"]


def test_facts_and_nodes_of_the_tree(as_role: As, service: Service) -> None:
    seller, tree = as_role("seller"), service.models.current().taxonomy
    facts = seller.get("/v1/taxonomy").json()
    assert (facts["n_nodes"], facts["n_levels"]) == (tree.n_nodes, tree.n_levels)
    assert sum(facts["nodes_by_level"]) == tree.n_nodes
    assert facts["taxonomy_version"] == tree.version
    assert [root["name"] for root in facts["roots"]] == ["Home", "Toys"]
    for root in facts["roots"]:
        node = seller.get(f"/v1/taxonomy/nodes/{root['node_id']}").json()
        assert node["parents"] == []
        assert node["holds_products"] == (node["name"] == "Toys")
        for child in node["children"]:
            below = seller.get(f"/v1/taxonomy/nodes/{child['node_id']}").json()
            assert below["parents"] == [root]
            assert below["path"] == [root["name"], below["name"]]
            assert below["attributes"] == []


@pytest.mark.parametrize("node_id", ["nowhere", "a/b", "..%2f..", "%00", "x" * 3000])
def test_a_node_that_is_not_there_is_not_found(node_id: str, as_role: As) -> None:
    answer = as_role("seller").get(f"/v1/taxonomy/nodes/{node_id}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    if answer.json()["detail"].startswith("no node"):
        assert "/v1/taxonomy/search" in answer.json()["detail"]


def test_search_over_http(as_role: As, client: TestClient) -> None:
    seller = as_role("seller")
    found = seller.get("/v1/taxonomy/search", params={"q": "CHAIR bar"}).json()["nodes"]
    assert [node["path"] for node in found] == [["Home", "Chairs", "Bar"]]
    assert len(seller.get("/v1/taxonomy/search", params={"q": "h", "n": 2}).json()["nodes"]) == 2
    assert seller.get("/v1/taxonomy/search", params={"q": "%&/ --"}).json()["nodes"] == []
    for wrong in ("", "q=", f"q={'x' * 201}", "q=x&n=0", "q=x&n=101", "q=x&limit=5"):
        assert seller.get(f"/v1/taxonomy/search?{wrong}").status_code == 422
    assert client.get("/v1/taxonomy/search?q=chair").status_code == 401


def test_search_finds_what_a_look_at_every_node_finds() -> None:
    rng = random.Random(5)
    paths = {
        tuple(" ".join(rng.choices(WORDS, k=rng.randint(1, 3))) for _ in range(rng.randint(1, 4)))
        for _ in range(150)
    }
    tree = Taxonomy.from_paths(sorted(paths))
    search = Search(tree)
    names = [words_of(name) for name in tree.names]
    paths_of = [words_of(path) for path in tree.paths]

    def points(k: int, query: list[str]) -> int:
        name, path, total = names[k], paths_of[k], 0
        for asked in query:
            if asked in name:
                total += 4
            elif any(word.startswith(asked) for word in name):
                total += 3
            elif any(word.startswith(asked) for word in path):
                total += 1
            else:
                return 0
        return total

    for _ in range(60):
        query = [word[: rng.randint(1, len(word))] for word in rng.choices(WORDS, k=rng.randint(1, 3))]
        asked = words_of(" ".join(query))
        expected = {k: points(k, asked) for k in range(tree.n_nodes) if points(k, asked)}
        found = search(" ".join(query), tree.n_nodes)
        assert len(found) == len(set(found))
        assert set(found) == expected.keys(), query
        assert [expected[k] for k in found] == sorted(expected.values(), reverse=True)
        assert search(" ".join(query), 3) == found[:3]


def test_search_does_not_mind_case_accents_and_order() -> None:
    tree = Taxonomy.from_paths([("Möbel", "Été"), ("Straße",)])
    search = Search(tree)
    assert [tree.names[k] for k in search("ete mobel", 5)] == ["Été"]
    assert [tree.names[k] for k in search("STRASSE", 5)] == ["Straße"]
    assert search("", 5) == []
    assert search("zebra", 5) == []
    assert search("a " * 5000, 5) == []


def test_a_word_is_found_inside_of_others_and_with_one_letter_wrong() -> None:
    tree = Taxonomy.from_paths([("Garden", "Gartenstühle"), ("Furniture", "Chairs"), ("家具", "办公椅子")])
    search = Search(tree)

    def names(query: str) -> list[str]:
        return [tree.names[k] for k in search(query, 5)]

    assert names("stuhl") == ["Gartenstühle"]
    assert names("椅") == ["办公椅子"]
    for wrong in ("chiars", "chars", "chhairs", "cheirs", "chaisr", "furnitrue chairs"):
        assert names(wrong) == ["Chairs"], wrong
    assert names("chxyrs") == names("cha1rz2") == names("xq") == []


def test_the_search_is_ready_before_anybody_searches(service: Service) -> None:
    tree, names = service.models.current().taxonomy, service.settings.data / NAMES
    give_up = time.monotonic() + 10
    while (tree.version, names) not in search._searches and time.monotonic() < give_up:
        time.sleep(0.05)
    ready = search._searches.get((tree.version, names))
    assert ready is not None, "made by a thread of the service, not by a request"
    assert search_of(tree, names) is ready


def test_who_searches_while_the_search_is_made_waits_for_it(tmp_path: Path) -> None:
    tree = Taxonomy.from_paths([(f"shelf {i}", f"box {i}") for i in range(2000)])
    making = search.warm(tree, tmp_path)
    found = search_of(tree, tmp_path)
    making.join(10)
    assert search_of(tree, tmp_path) is found


def test_names_of_another_language_are_found_too(tmp_path: Path, as_role: As, service: Service) -> None:
    english = tmp_path / "en.txt"
    english.write_text("1 - Furniture\n2 - Furniture > Chairs\n3 - Toys\n", encoding="utf-8")
    names = tmp_path / "names"
    names.mkdir()
    (names / "fr.txt").write_text("1 - Meubles\n2 - Meubles > Chaises\n", encoding="utf-8")
    (names / "broken.txt").write_text("no names at all", encoding="utf-8")
    tree = read_taxonomy(english)
    search = search_of(tree, names)
    (chairs,) = search("chaise", 5)
    assert tree.names[chairs] == "Chairs"
    assert search("meubles chairs", 5) == [chairs]
    assert search.also(chairs, "chaise meub") == ["Meubles", "Chaises"]
    assert search.also(chairs, "chairs") is None
    found = as_role("seller").get("/v1/taxonomy/search", params={"q": "chairs"}).json()["nodes"]
    assert {node["also"] for node in found} == {None}
