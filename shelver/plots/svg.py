"""One matplotlib figure as an `<svg>` element for any page."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from defusedxml.ElementTree import fromstring

from shelver.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK: Final = "#010203"
"""What is drawn in this colour becomes currentColor."""
_ALONE: Final = "#767676"
_PX_A_POINT: Final = 96 / 72
_SVG: Final = "http://www.w3.org/2000/svg"
_HREF: Final = "{http://www.w3.org/1999/xlink}href"
_SETTINGS: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "shelver",
    "text.parse_math": False,  # a category may be called "$1 and less"
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same measures everywhere
    "font.size": 9.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.14,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.0,
}
_ONE_AT_A_TIME: Final = threading.Lock()  # matplotlib's settings belong to the whole process
_UNPRINTABLE: Final = re.compile(
    r"[^\S ]|[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)

Draw = Callable[["Axes"], None]


def printable(text: str) -> str:
    """A text without control characters, half pairs and changes of direction: XML allows or readers need none."""
    return _UNPRINTABLE.sub(" ", text)


def drawn(draws: Sequence[Draw], title: str, described: str, *, size: tuple[float, float]) -> str:
    """Draws panels side by side; the size is in inches of 96 px."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            "pictures need matplotlib, which is not installed",
            allowed="an environment with the `report` extra",
            remedy="Run `pip install 'shelver[report]'`.",
        ) from error
    with _ONE_AT_A_TIME, mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # A reader's fonts have the letters that the one we measure with lacks.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        all_axes = figure.subplots(1, max(len(draws), 1), squeeze=False)[0]
        for draw, axes in zip(draws, all_axes, strict=True):
            draw(axes)
        return _cleaned(_saved(figure), title, described)


def _saved(figure: Figure) -> str:
    file = io.StringIO()
    empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=empty)
    return file.getvalue()


def _cleaned(source: str, title: str, described: str) -> str:
    """matplotlib's file as one element for any page: no styles, no clashing ids, the ink as currentColor."""
    root = fromstring(source)
    for child in list(root):
        if child.tag == f"{{{_SVG}}}metadata" or child.find(f"{{{_SVG}}}style") is not None:
            root.remove(child)  # that style sheet would hold for the whole page
    used = set(re.findall(r"#([A-Za-z]\w{8,})", " ".join(v for e in root.iter() for v in e.attrib.values())))
    # Two pictures of one page may define the same mark; with the picture's own digits they are told apart.
    own = "p" + hashlib.sha256(f"{title}{source}".encode(errors="replace")).hexdigest()[:8]
    for element in root.iter():
        style = element.attrib.pop("style", "")
        for declaration in style.split(";"):
            name, _, value = declaration.partition(":")
            if name.strip() and name.strip() != "font-family":
                element.set(name.strip(), value.strip())
        if _HREF in element.attrib:
            element.set("href", element.attrib.pop(_HREF))
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        for name, value in element.attrib.items():
            if name in ("href", "clip-path"):
                value = value.replace("#", f"#{own}-")
            elif name == "id":
                value = f"{own}-{value}"
            elif name == "d":
                value = " ".join(value.split())
            element.set(name, value.replace(INK, "currentColor"))
        if element.text is not None and not element.text.strip():
            element.text = None
        element.tail = None
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib.pop("version", None)
    root.attrib.update(
        {
            "class": "plot",
            "width": f"{float(width) * _PX_A_POINT:.0f}",
            "height": f"{float(height) * _PX_A_POINT:.0f}",
            "role": "img",
            "color": _ALONE,
            "font-family": "system-ui, sans-serif",
            "stroke-linejoin": "round",
            "overflow": "visible",  # a reader's font may be a little wider than ours
        }
    )
    for place, (tag, text) in enumerate((("title", title), ("desc", described))):
        element = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{own}-{tag}"})
        element.text = printable(text)
        root.insert(place, element)
    root.set("aria-labelledby", f"{own}-title")
    root.set("aria-describedby", f"{own}-desc")
    ET.register_namespace("", _SVG)
    return ET.tostring(root, encoding="unicode")
