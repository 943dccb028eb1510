"""One offline HTML file of limited size, without scripts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from shelver.evaluate import Report
from shelver.evaluate.examples import N_EXAMPLES
from shelver.registry import Manifest
from shelver.report import sections
from shelver.report.markup import safe

PAGE: Final = "report.html"
MAX_BYTES: Final = 5_000_000

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
.pair{display:flex;flex-wrap:wrap;gap:8px 36px;align-items:flex-end}
.pair figure{flex:1 1 340px;max-width:480px}
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
        `out`, written whole or not at all, smaller than `MAX_BYTES`: examples are left out before anything else.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    top = sections.headline(report)
    middle = [
        sections.breakdowns(report),
        sections.confidence(report),
        sections.confusions(report),
        sections.learning(learning),
    ]
    bottom = sections.about(report, manifest)
    rest = len(_page(report, "".join([top, *middle, bottom])).encode("utf-8", errors="replace"))
    shown = _examples(report, pictures, MAX_BYTES - rest - 100)  # the link to them
    page = _page(report, "".join([top, *middle, shown, bottom])).encode("utf-8", errors="replace")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    partial.write_bytes(page)
    partial.replace(out)
    return out


def _examples(report: Report, pictures: Mapping[str, bytes], max_bytes: int) -> str:
    """The examples; too large, fewer and fewer of them, then without pictures, then none."""
    n = N_EXAMPLES
    while n:
        kinds = (report.examples.right, report.examples.wrong, report.examples.unsure)
        weight = sum(len(pictures.get(one.product_id, b"")) for kind in kinds for one in kind[:n])
        if weight < max_bytes:  # as base64 it grows, so else there is no need to look
            shown = sections.examples(report, pictures, n=n)
            if len(shown.encode("utf-8", errors="replace")) <= max_bytes:
                return shown
        n //= 2
    shown = sections.examples(report, {}, n=N_EXAMPLES)
    return shown if len(shown.encode("utf-8", errors="replace")) <= max_bytes else ""


def _page(report: Report, content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    anchors = {
        "levels": "Levels",
        "asked": "Text and picture",
        "confidence": "Confidence",
        "confusions": "Confusions",
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
