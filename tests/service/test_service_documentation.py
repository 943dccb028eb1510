"""/docs and /openapi.json: a page for people, a document for programs, open to everybody, whole in themselves."""

from __future__ import annotations

import re
import shlex
from html.parser import HTMLParser
from typing import Any

import pytest
from fastapi.testclient import TestClient

from shelver.service.documentation import curl, page
from shelver.service.openapi import operations_of
from shelver.service.problems import CODES


class Parts(HTMLParser):
    """Tags that are open, ids, links and files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "link", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_shows_every_operation_and_code(client: TestClient) -> None:
    answer = client.get("/docs")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    parts = Parts(answer.text)
    assert not parts.open
    assert len(parts.ids) == len(set(parts.ids))
    for _, _, operation in operations_of(client.get("/openapi.json").json()):
        assert operation["operationId"] in parts.ids
    for code in CODES:
        assert f"<code>{code}</code>" in answer.text


def test_the_page_takes_nothing_from_elsewhere_and_runs_nothing(client: TestClient) -> None:
    answer = client.get("/docs")
    parts = Parts(answer.text)
    assert not parts.tags & {"script", "style", "img", "iframe", "form", "object"}
    assert not {name for name in parts.attributes if name == "style" or name.startswith("on")}
    assert {link for link in parts.links if not link.startswith("#")} == {"/docs/style.css", "/openapi.json"}
    assert {link[1:] for link in parts.links if link.startswith("#")} <= set(parts.ids)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    style = client.get("/docs/style.css")
    assert style.headers["Content-Type"].startswith("text/css")
    assert not re.search(r"url\(|@import", style.text)


def test_the_page_is_made_once(client: TestClient) -> None:
    assert client.get("/docs").text == client.get("/docs").text
    assert client.app.state.documentation is client.app.state.documentation  # type: ignore[attr-defined]
    assert client.get("/openapi.json").json() == client.app.openapi()  # type: ignore[attr-defined]


def test_what_the_document_says_cannot_become_markup(client: TestClient) -> None:
    document: dict[str, Any] = client.get("/openapi.json").json()
    evil = "<script>alert(1)</script>\"' onload=x"
    document["info"]["description"] = evil
    operation = document["paths"]["/v1/predict"]["post"]
    operation["description"] = operation["summary"] = operation["operationId"] = evil
    document["components"]["schemas"]["Problem"]["description"] = evil
    text = page(document)
    assert "<script" not in text
    assert not {name for name in Parts(text).attributes if name.startswith("on")}


def test_curl_lines_are_lines_of_a_shell(client: TestClient) -> None:
    lines = {
        operation["operationId"]: shlex.split(curl(method, path, operation).replace("\\\n", ""))
        for method, path, operation in operations_of(client.get("/openapi.json").json())
    }
    assert all(words[0] == "curl" for words in lines.values())
    assert not [words for words in lines.values() if "{" in words[1]]
    assert lines["healthz"] == ["curl", "http://127.0.0.1:8000/healthz"]
    assert lines["delete_product"][1:3] == ["-X", "DELETE"]
    assert lines["login"][2:] == [
        "--data-urlencode",
        "username=ann@example.org",
        "--data-urlencode",
        "password=four words are enough",
    ]
    assert lines["add_pictures"][-2:] == ["-F", "files=@chair.jpg"]


@pytest.mark.parametrize("path", ["/redoc", "/docs/", "/docs/oauth2-redirect", "/docs/other.css"])
def test_there_is_no_other_page(client: TestClient, path: str) -> None:
    assert client.get(path, follow_redirects=False).status_code in (307, 404)
