"""/docs: a page for people, made from the OpenAPI document. No script, nothing from elsewhere, rendered once."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Request, Response

from shelver.service.accounts.identity import allowed
from shelver.service.openapi import CACHED, OPENAPI, operations_of
from shelver.service.problems import CODES

PAGE: Final = "/docs"
STYLE: Final = "/docs/style.css"
_SERVER: Final = "http://127.0.0.1:8000"
_HEADERS: Final = CACHED | {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
_STYLE: Final = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
_LIMITS: Final = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "pattern": "matches {}",
    "default": "else {}",
}
Json = Mapping[str, Any]
router = APIRouter()


@router.get(PAGE, include_in_schema=False, dependencies=[allowed("public")])
def documentation(request: Request) -> Response:
    """Every route, for people."""
    app: FastAPI = request.app
    if not hasattr(app.state, "documentation"):
        app.state.documentation = page(app.openapi())
    return Response(app.state.documentation, media_type="text/html; charset=utf-8", headers=_HEADERS)


@router.get(STYLE, include_in_schema=False, dependencies=[allowed("public")])
def documentation_style() -> Response:
    """What the page looks like."""
    return Response(_STYLE, media_type="text/css; charset=utf-8", headers=CACHED)


def page(document: Json) -> str:
    """The page of an OpenAPI document."""
    by_tag: dict[str, list[tuple[str, str, Json]]] = {}
    for method, path, operation in operations_of(dict(document)):
        by_tag.setdefault(operation["tags"][0], []).append((method, path, operation))
    info = document["info"]
    contents = "".join(f'<li><a href="#{_text(tag)}">{_text(tag)}</a></li>' for tag in by_tag)
    sections = "".join(
        f'<section id="{_text(tag)}"><h2>{_text(tag)}</h2>' + "".join(map(_operation, operations)) + "</section>"
        for tag, operations in by_tag.items()
    )
    schemas = "".join(_schema(name, of) for name, of in sorted(document["components"]["schemas"].items()))
    codes = _table(
        ("code", "status", "title"),
        ((f"<code>{name}</code>", str(code.status), _text(code.title)) for name, code in CODES.items()),
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{_text(info["title"])}: its routes</title><link rel="stylesheet" href="{STYLE}"></head><body>'
        f"<header><h1>{_text(info['title'])} <small>{_text(info['version'])}</small></h1>"
        f"<p>{_text(info['description'])}</p>"
        "<p>Sign in at <code>/v1/login</code>, and send the access token, or an API key, as "
        f'<code>Authorization: Bearer …</code>. Programs read <a href="{OPENAPI}">{OPENAPI}</a>.</p></header>'
        f'<nav aria-label="Contents"><ul>{contents}<li><a href="#problems">problems</a></li>'
        f'<li><a href="#schemas">schemas</a></li></ul></nav><main>{sections}'
        '<section id="problems"><h2>problems</h2><p>Every refusal is an <code>application/problem+json</code> '
        f"with a <code>code</code> that stays.</p>{codes}</section>"
        f'<section id="schemas"><h2>schemas</h2>{schemas}</section></main></body></html>'
    )


def curl(method: str, path: str, operation: Json) -> str:
    """A line for a shell that calls an operation as its examples have it."""
    asked = []
    for one in operation.get("parameters", ()):
        if one["in"] == "path":
            path = path.replace("{" + one["name"] + "}", quote(str(one["example"]), safe=""))
        elif one["in"] == "query" and one["required"]:
            asked.append(f"{one['name']}={quote(str(one['example']))}")
    content: Json = operation.get("requestBody", {}).get("content", {})
    flag = "" if method == ("POST" if content else "GET") else f" -X {method}"
    parts = [f"curl{flag} " + shlex.quote(_SERVER + path + ("?" + "&".join(asked) if asked else ""))]
    if operation.get("security"):
        parts.append('-H "Authorization: Bearer $TOKEN"')
    if "application/json" in content:
        parts.append(
            "--json " + shlex.quote(json.dumps(content["application/json"]["example"], ensure_ascii=False))
        )
    else:
        for kind, of in list(content.items())[:1]:
            if isinstance(of["example"], str):
                parts.append(f'-H "Content-Type: {kind}" --data-binary @feed.csv')
                continue
            flag = "-F" if kind.startswith("multipart") else "--data-urlencode"
            parts += [f"{flag} {shlex.quote(_form_field(name, value))}" for name, value in of["example"].items()]
    return " \\\n  ".join(parts)


def _form_field(name: str, value: Any) -> str:
    if isinstance(value, list) or value == "the bytes of a file":
        return f"{name}=@chair.jpg"
    return f"{name}={value}"


def _operation(one: tuple[str, str, Json]) -> str:
    method, path, operation = one
    parts = [_prose(operation["description"]), f'<p class="who">{_who(operation)}</p>']
    if operation.get("parameters"):
        rows = (
            (
                f"<code>{_text(one['name'])}</code>{_needed(one['required'])}",
                one["in"],
                _type(one["schema"]),
                _said(one["schema"] | {"description": one.get("description", "")}),
            )
            for one in operation["parameters"]
        )
        parts.append("<h4>Parameters</h4>" + _table(("name", "in", "type", "meaning"), rows))
    for kind, of in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h4>Takes <code>{_text(kind)}</code></h4>" + _shape(of["schema"]))
    parts.append(f"<h4>Example</h4><pre><code>{_text(curl(method, path, operation))}</code></pre>")
    problems = []
    for status, answer in operation["responses"].items():
        problems += [f"<code>{code}</code> {status}" for code in answer.get("x-codes", ())]
        if status < "400":
            parts.append(_answer(status, answer))
    parts.append(f'<p class="codes">Problems: {", ".join(problems)}</p>')
    return (
        f'<details id="{_text(operation["operationId"])}"><summary><span class="method {method.lower()}">{method}'
        f'</span> <code class="path">{_breakable(path)}</code> <span class="does">{_marked(operation["summary"])}'
        f"</span></summary><div>{''.join(parts)}</div></details>"
    )


def _answer(status: str, answer: Json) -> str:
    content: Json = answer.get("content", {})
    kinds = ", ".join(f"<code>{_text(kind)}</code>" for kind in content) or "nothing more"
    shown = f"<h4>Answers {status}: {kinds}</h4>"
    for of in list(content.values())[:1]:
        if of.get("schema"):
            shown += f"<p>{_type(of['schema'])}</p>"
        if "example" in of:
            example = of["example"]
            text = example if isinstance(example, str) else json.dumps(example, indent=2, ensure_ascii=False)
            shown += f"<pre><code>{_text(text)}</code></pre>"
    return shown


def _who(operation: Json) -> str:
    roles = operation["x-roles"]
    who = "Anybody" if "public" in roles else ", ".join(f"<b>{role}</b>" for role in roles)
    public = ", and anybody where <code>public_per_minute</code> is set" if operation["x-may-be-public"] else ""
    return f"May call it: {who}{public}."


def _schema(name: str, schema: Json) -> str:
    said = _prose(schema.get("description", ""))
    return f'<article id="schema-{_text(name)}"><h3>{_text(name)}</h3>{said}{_shape(schema)}</article>'


def _shape(schema: Json) -> str:
    """The fields of an object, or what else it is."""
    if "properties" not in schema:
        return f"<p>{_type(schema)}</p>"
    needed = schema.get("required", ())
    return _table(
        ("field", "type", "meaning"),
        (
            (f"<code>{_text(name)}</code>{_needed(name in needed)}", _type(of), _said(of))
            for name, of in schema["properties"].items()
        ),
    )


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = _text(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#schema-{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_type, schema["anyOf"])))
    if "const" in schema or "enum" in schema:
        return ", ".join(f"<code>{_text(one)}</code>" for one in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return _text(schema.get("format") or schema.get("contentMediaType") or schema.get("type", "anything"))


def _said(schema: Json) -> str:
    limits = [text.format(schema[name]) for name, text in _LIMITS.items() if schema.get(name) is not None]
    for choice in schema.get("anyOf", ()):
        limits += [text.format(choice[name]) for name, text in _LIMITS.items() if choice.get(name) is not None]
    shown = _marked(schema.get("description", ""))
    return shown + (f" <small>{_text('; '.join(limits))}</small>" if limits else "")


def _needed(needed: bool) -> str:
    return ' <b title="must be given">*</b>' if needed else ""


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = "".join(f'<th scope="col">{name}</th>' for name in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _prose(text: str) -> str:
    return "".join(f"<p>{_marked(part)}</p>" for part in text.split("\n\n") if part.strip())


def _marked(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))


def _breakable(path: str) -> str:
    return _text(path).replace("/", "/<wbr>")


def _text(value: object) -> str:
    return escape(str(value))
