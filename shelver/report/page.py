"""One offline HTML file of limited size, without scripts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from shelver.evaluate import Example, Report
from shelver.evaluate.examples import N_EXAMPLES
from shelver.registry import Manifest
from shelver.report import attributes, mistakes, sections, trust
from shelver.report.markup import safe

PAGE: Final = "report.html"
MAX_BYTES: Final = 5_000_000
ROOM_FOR_LINKS: Final = 500

_STYLE: Final = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#5d6670;--line:#e3e6ea;--tint:#f5f6f8;
--bad:#b14a00}
@media(prefers-color-scheme:dark){:root{--paper:#14171a;--ink:#e4e7ea;--soft:#9aa4ae;--line:#2b3036;--tint:#1c2025;
--bad:#f0883e}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main,header,footer{max-width:1040px;margin:0 auto;padding:0 24px}
header{padding-top:40px}
h1{font-size:26px;line-height:1.25;margin:0 0 4px;font-weight:650}
h2{font-size:19px;margin:0 0 4px;font-weight:650}
h3{font-size:15px;margin:24px 0 8px;font-weight:650}
section{margin:44px 0 0}
p{margin:0 0 8px}
.sub,.note,figcaption,.small,footer,.tiles span{color:var(--soft)}
.note{max-width:70ch}
nav{margin:14px 0 0;font-size:14px}
nav a{color:inherit;margin-right:14px;text-decoration-color:var(--soft);text-underline-offset:3px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin:28px 0 0}
.tiles div{background:var(--tint);border:1px solid var(--line);border-radius:8px;padding:14px 16px}
.tiles dt{font-size:13px;color:var(--soft)}
.tiles dd{margin:0}
.tiles b{display:block;font-size:26px;line-height:1.3;font-weight:650;font-variant-numeric:tabular-nums}
.tiles span{font-size:12.5px;display:block}
.wide{overflow-x:auto;margin:14px 0}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:6px 18px 6px 0;border-bottom:1px solid var(--line);vertical-align:top;
font-weight:400}
thead th{color:var(--soft);font-size:12.5px;white-space:nowrap}
tbody th{font-weight:550;overflow-wrap:anywhere;min-width:8.5em}
td{overflow-wrap:anywhere}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums;padding-right:0;padding-left:18px}
figure{margin:14px 0}
figure svg.plot{color:inherit;max-width:100%;height:auto;display:block}
figcaption{font-size:13px;max-width:64ch;margin-top:4px}
.pair{display:flex;flex-wrap:wrap;gap:8px 36px;align-items:flex-start}
.pair figure{flex:1 1 340px;max-width:480px}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(225px,1fr));gap:8px 18px;margin:14px 0}
.grid figure{margin:0;max-width:280px}
.like{margin-top:10px}
.tree{min-width:720px;font-size:14px}
.branch{display:grid;grid-template-columns:minmax(0,1fr) 74px 74px 74px 92px 74px 60px;gap:0 10px;
align-items:center;padding:4px 0;border-bottom:1px solid var(--line)}
.branch b{font-weight:550;overflow-wrap:anywhere;padding-left:16px;position:relative}
.branch .n{padding:0}
.head,.head b{color:var(--soft);font-size:12.5px;font-weight:400}
.head .n{white-space:normal}
.tree details{margin:0}
summary.branch{list-style:none}
summary.branch::-webkit-details-marker{display:none}
summary.branch b::before{content:"\\25b8";position:absolute;left:0;color:var(--soft)}
details[open]>summary.branch b::before{content:"\\25be"}
summary.branch:hover{background:var(--tint)}
.in{padding-left:18px}
.in .cards{margin:10px 0 14px}
.lost{fill:var(--bad)}
.cards{list-style:none;margin:0;padding:0;display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));
gap:12px}
.cards li{display:flex;gap:12px;border:1px solid var(--line);border-radius:8px;padding:10px;font-size:13.5px;
min-width:0}
.cards li>div:last-child{min-width:0;overflow-wrap:anywhere}
.cards img,.none{width:72px;height:96px;object-fit:contain;flex:none;border-radius:4px;background:#fff}
.none{background:var(--tint)}
.cards p{margin:0 0 3px}
.path{color:var(--soft)}
.path b{font-weight:600;color:var(--ink)}
.wrong,.wrong b{color:var(--bad)}
.small{font-size:12.5px}
.id{white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
details{margin-top:12px}
summary{cursor:pointer}
footer{margin:56px auto 40px;font-size:13px}
@media print{nav,summary{display:none}section,figure,li{break-inside:avoid}}
"""


def write_html(
    report: Report,
    out: Path,
    *,
    pictures: Mapping[str, bytes],
    learning: Sequence[sections.LearningRow] | None,
    manifest: Manifest,
) -> Path:
    """Write a report as one file that needs no network, no script and no other file.

    Args:
        report: what was measured.
        out: the file.
        pictures: small JPEG pictures by product id, as `shelver.evaluate.thumbnails` makes them.
        learning: the rows of the training's `run/metrics.jsonl`, if it is there.
        manifest: of the model.

    Returns:
        `out`, written whole or not at all, smaller than `MAX_BYTES`: where there is too much, the tree, the
        siblings and the examples first do without pictures, and then are left out.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    parts = {
        "headline": sections.headline(report),
        "breakdowns": sections.breakdowns(report),
        "calibration": trust.calibration(report),
        "confidence": trust.confidence(report),
        "attributes": attributes.attributes(report),
        "confusions": mistakes.confusions(report),
        "siblings": "",
        "tree": "",
        "learning": sections.learning(learning),
        "examples": "",
        "about": sections.about(report, manifest),
    }
    # What may be large comes last, and makes do with the room that is left.
    room = MAX_BYTES - _size(_page(report, "".join(parts.values()))) - ROOM_FOR_LINKS
    best = report.examples
    beside = [one for pair in report.siblings for one in (*pair.examples, *pair.like)]
    lost = [one for branch in report.tree for one in branch.examples]
    ways = {
        "examples": [
            *(
                _Way(
                    partial(sections.examples, report, pictures, n=n),
                    _weight([*best.right[:n], *best.wrong[:n], *best.unsure[:n]], pictures),
                )
                for n in _fewer(N_EXAMPLES)
            ),
            _Way(partial(sections.examples, report, {}, n=N_EXAMPLES)),
        ],
        "siblings": [
            _Way(partial(mistakes.siblings, report, pictures), _weight(beside, pictures)),
            _Way(partial(mistakes.siblings, report)),
        ],
        "tree": [
            _Way(partial(mistakes.tree, report, pictures), _weight(lost, pictures)),
            _Way(partial(mistakes.tree, report)),
        ],
    }
    for name, tries in ways.items():
        made = (way.make() for way in tries if way.weight < room)
        parts[name] = next((part for part in made if _size(part) <= room), "")
        room -= _size(parts[name])
    page = _page(report, "".join(parts.values())).encode("utf-8", errors="replace")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(out.name + ".partial")
    unfinished.write_bytes(page)
    unfinished.replace(out)
    return out


class _Way(NamedTuple):
    """One way to make a part of the page; `weight` are the bytes of its pictures, as text they are more."""

    make: Callable[[], str]
    weight: int = 0


def _weight(examples: Sequence[Example], pictures: Mapping[str, bytes]) -> int:
    return sum(len(pictures.get(one.product_id, b"")) for one in examples)


def _fewer(n: int) -> Iterator[int]:
    while n:
        yield n
        n //= 2


def _size(text: str) -> int:
    """In bytes."""
    return len(text.encode("utf-8", errors="replace"))


def _page(report: Report, content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    anchors = {
        "levels": "Levels",
        "several": "Several right paths",
        "asked": "Text and picture",
        "calibration": "Calibration",
        "confidence": "Confidence",
        "attributes": "Attributes",
        "confusions": "Confusions",
        "siblings": "Siblings",
        "tree": "Tree",
        "learning": "Learning",
        "examples": "Examples",
        "model": "Model",
    }
    links = "".join(
        f'<a href="#{anchor}">{name}</a>'
        for anchor, name in anchors.items()
        if f'<section id="{anchor}">' in content
    )
    title = f"Model {safe(report.model)} on catalog {safe(report.catalog)}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{title}: report</title><style>{_STYLE}</style></head><body>"
        f'<header><h1>{title}</h1><p class="sub">Version {safe(report.model_version)}, asked about the '
        f"{report.n:,} labelled products of the {report.split} split.</p><nav>{links}</nav></header>"
        f"<main>{content}</main>"
        "<footer>Measured by shelver on the exported model folder. All figures stand in report.json.</footer>"
        "</body></html>\n"
    )
