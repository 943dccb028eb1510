"""Pictures as SVG: the same bytes for the same numbers, safe in any page, legible on light and dark."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from defusedxml.ElementTree import fromstring

from shelver import plots
from shelver.errors import MissingExtraError, ShapeError

if find_spec("matplotlib") is None:
    if os.environ.get("CI") == "true":
        raise RuntimeError("CI must have matplotlib: install the `report` extra")
    pytest.skip("matplotlib is not installed", allow_module_level=True)

SVG = "{http://www.w3.org/2000/svg}"
NASTY = [
    "$x^$ < 3 & \"more\" 'less'",
    "<script>alert(1)</script>",
    "_hidden",
    "茶 \U0001f375 چای",
    "a\x00b\u202ec\ud800d",
]
CURVES = {"text": ([0.2, 0.5, 0.9], [0.3, 0.5, 0.8]), "picture": ([0.1, 0.9], [0.2, 0.7])}


def bars(title: str = "Bars") -> str:
    return plots.bars(
        ["level 1", "level 2"], {"accuracy": [0.5, 1.0], "macro-F1": [None, 0.25]}, title=title, n=[9, 4]
    )


DRAWN: dict[str, Callable[[], str]] = {
    "bars": bars,
    "bars of nasty names": lambda: plots.bars(NASTY, {"$a$": [0.1] * len(NASTY)}, title=NASTY[1]),
    "reliability": lambda: plots.reliability(CURVES, title="Reliability"),
    "small reliability": lambda: plots.reliability(CURVES, title="Small", heading=NASTY[0], side=2.9),
    "risk": lambda: plots.risk_coverage(CURVES, title="Risk", best=([0.0, 0.5, 1.0], [0.0, 0.0, 0.5])),
    "policies": lambda: plots.selective(
        CURVES, title="Policies", points={"1": (0.9, 0.8), "2": (0.9, 0.8), NASTY[1]: (0.1, 0.2)}
    ),
    "selective": lambda: plots.selective(CURVES, title="Selective"),
    "confusions": lambda: plots.confusion_matrix(
        NASTY, [[9 if i == j else j % 2 for j in range(5)] for i in range(5)], title="Confusions"
    ),
    "learning": lambda: plots.learning({"loss": CURVES, "accuracy": {"text": ([1.0], [0.5])}}, title="Learning"),
    "nothing": lambda: plots.reliability({}, title="Nothing"),
}


def texts(root: Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_one_element_that_any_page_can_hold(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = DRAWN[name]()
    root = fromstring(drawn)
    assert root.tag == f"{SVG}svg"
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "g", "path", "text", "use", "defs", "clipPath", "rect"}
    attributes = [(key, value) for element in root.iter() for key, value in element.attrib.items()]
    # A strict content-security policy forbids style attributes; handlers must not be there at all.
    assert not [key for key, _ in attributes if key == "style" or key.startswith("on")]
    assert not [value for key, value in attributes if key == "href" and not value.startswith("#")]
    ids = [value for key, value in attributes if key == "id"]
    assert len(ids) == len(set(ids))
    referred = {
        one for _, value in attributes for one in re.findall(r"#([\w-]+)", value) if one in value and "-" in one
    }
    referred |= {value for key, value in attributes if key.startswith("aria-")}
    assert referred <= set(ids)
    assert root.findtext(f"{SVG}title")
    assert root.get("role") == "img"


def test_the_same_numbers_give_the_same_bytes_also_from_several_threads() -> None:
    alone = {name: draw() for name, draw in DRAWN.items()}
    with ThreadPoolExecutor(4) as pool:
        together = {name: pool.submit(draw) for name, draw in DRAWN.items()}
        assert {name: one.result() for name, one in together.items()} == alone
    assert not re.search(r"20\d\d-\d\d|[Mm]atplotlib v", "".join(alone.values()))


def test_two_pictures_of_one_page_share_no_id() -> None:
    ids = [set(re.findall(r' id="([^"]+)"', bars(title))) for title in ("One", "Two")]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_names_are_drawn_as_they_are_and_never_as_formulas_or_markup() -> None:
    drawn = texts(fromstring(DRAWN["bars of nasty names"]()))
    assert NASTY[0] in drawn
    assert NASTY[1] in drawn
    assert NASTY[2] in drawn
    assert NASTY[3] in drawn
    assert "a b c d" in drawn


def test_bars_are_as_long_as_their_values_and_absent_ones_have_no_figure() -> None:
    root = fromstring(bars())
    width: dict[str, list[float]] = {}
    for path in root.iter(f"{SVG}path"):
        x = [float(value) for value in re.findall(r"[ML] (-?[\d.]+) ", path.get("d", ""))]
        if path.get("fill", "").lower() in plots.PALETTE and path.get("clip-path"):
            width.setdefault(path.get("fill", "").lower(), []).append(max(x) - min(x))
    accuracy, macro = width[plots.PALETTE[0]], width[plots.PALETTE[1]]
    assert accuracy[0] / accuracy[1] == pytest.approx(0.5, abs=1e-3)
    assert macro[1] / accuracy[1] == pytest.approx(0.25, abs=1e-3)
    assert {"0.500", "1.000", "0.250", "level 1 (9)"} <= set(texts(root))
    assert "0.000" not in texts(root)
    described = root.findtext(f"{SVG}desc") or ""
    assert "level 1: accuracy 0.500, macro-F1 none" in described


def contrast(colour: str, paper: str) -> float:
    """As WCAG 2 defines it."""

    def luminance(code: str) -> float:
        parts = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    one, other = sorted((luminance(colour), luminance(paper)))
    return (other + 0.05) / (one + 0.05)


@pytest.mark.parametrize("paper", ["#ffffff", "#14171a"])
def test_every_colour_stands_out_from_light_and_dark_paper(paper: str) -> None:
    assert [colour for colour in plots.PALETTE if contrast(colour, paper) < 3] == []
    alone = fromstring(bars()).get("color")
    assert alone is not None
    assert contrast(alone, paper) >= 3.9


@pytest.mark.parametrize("name", DRAWN)
def test_ink_takes_the_pages_colour_and_the_paper_shows_through(name: str) -> None:
    root = fromstring(DRAWN[name]())
    colours = {e.get(key, "").lower() for e in root.iter() for key in ("fill", "stroke")} - {"", "none"}
    assert colours <= {"currentcolor", *plots.PALETTE}
    assert all(text.get("fill") == "currentColor" for text in root.iter(f"{SVG}text"))


def test_numbers_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ShapeError, match="accuracy"):
        plots.bars(["a", "b"], {"accuracy": [0.5]}, title="")
    with pytest.raises(ShapeError, match="text"):
        plots.selective({"text": ([0.1, 0.2], [0.5])}, title="")
    with pytest.raises(ShapeError, match=r"\(1, 2\)"):
        plots.confusion_matrix(["a"], [[1, 2]], title="")


def test_points_are_marked_named_and_described_and_no_two_names_meet() -> None:
    points = {str(i): (0.9 + 0.001 * i, 0.8) for i in range(5)}
    root = fromstring(plots.selective(CURVES, title="Policies", points=points))
    assert {*points} <= set(texts(root))
    assert "3: precision 0.800 at coverage 0.903" in (root.findtext(f"{SVG}desc") or "")
    places = []
    for element in root.iter(f"{SVG}text"):
        found = re.search(r"translate\((-?[\d.]+) (-?[\d.]+)\)", element.get("transform", ""))
        x, y = (found.group(1), found.group(2)) if found else (element.get("x", ""), element.get("y", ""))
        if element.text in points:
            places.append((float(x), float(y)))
    assert len(places) == 5
    assert min(np.hypot(a - c, b - d) for a, b in places for c, d in places if (a, b) != (c, d)) > 7


def test_a_matrix_of_fifty_names_fits_a_page() -> None:
    names = [f"{i} {NASTY[i % 5]}" for i in range(50)]
    root = fromstring(plots.confusion_matrix(names, np.eye(50, dtype=int).tolist(), title="Fifty"))
    assert int(root.get("width", "0")) <= 1000
    assert texts(root).count("1") >= 50


def test_long_paths_keep_their_end() -> None:
    path = "Home & Garden > Kitchen & Dining > Kitchen Tools > Peelers"
    assert plots.short(path) == "Kitchen Tools > Peelers"
    assert plots.short("x" * 100, max_chars=10) == "x" * 9 + "…"


def test_matplotlib_waits_until_a_picture_is_drawn() -> None:
    program = "import sys, shelver.plots, shelver.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_matplotlib_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"shelver\[report\]"):
        bars()
