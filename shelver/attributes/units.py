"""Numbers as sellers write them, with their units: "12.5 cm", '5"', "1,5 kg", "1 1/2 inch", "5 ft 10 in"."""

from __future__ import annotations

import math
import re
from typing import Final

from shelver.attributes.fold import folded_words

# What is measured → unit → its size, and how sellers write it. Feet and inches are also signs, see `_SIGNS`.
_UNITS: Final[dict[str, dict[str, tuple[float, str]]]] = {
    "length": {
        "mm": (0.001, "millimeter millimeters millimetre millimetres"),
        "cm": (0.01, "cms centimeter centimeters centimetre centimetres"),
        "m": (1.0, "mtr mtrs meter meters metre metres"),
        "km": (1000.0, "kilometer kilometers kilometre kilometres"),
        "in": (0.0254, "inch inches inchs pouce pouces po"),
        "ft": (0.3048, "foot feet pied pieds"),
        "yd": (0.9144, "yard yards"),
    },
    "mass": {
        "mg": (1e-6, "milligram milligrams milligramme milligrammes"),
        "g": (0.001, "gm gms gr gram grams gramme grammes"),
        "kg": (1.0, "kgs kilo kilos kilogram kilograms kilogramme kilogrammes"),
        "oz": (0.028349523125, "ounce ounces once onces"),
        "lb": (0.45359237, "lbs pound pounds livre livres"),
    },
    "volume": {
        "ml": (0.001, "milliliter milliliters millilitre millilitres"),
        "cl": (0.01, "centiliter centiliters centilitre centilitres"),
        "l": (1.0, "ltr ltrs liter liters litre litres"),
        "fl oz": (0.0295735295625, "floz"),
        "gal": (3.785411784, "gallon gallons"),
    },
    "power": {"mW": (0.001, "milliwatt milliwatts"), "W": (1.0, "watt watts"), "kW": (1000.0, "kilowatt")},
    "voltage": {"mV": (0.001, "millivolt millivolts"), "V": (1.0, "volt volts"), "kV": (1000.0, "kilovolt")},
    "current": {"mA": (0.001, "milliamp milliamps"), "A": (1.0, "amp amps ampere amperes")},
    "charge": {"mAh": (0.001, ""), "Ah": (1.0, "")},
    "energy": {"Wh": (1.0, ""), "kWh": (1000.0, ""), "kJ": (1 / 3.6, "")},
    "data": {"KB": (1e3, "kilobyte ko"), "MB": (1e6, "megabyte mo"), "GB": (1e9, "gigabyte gigabytes go"),
             "TB": (1e12, "terabyte terabytes to")},
    "frequency": {"Hz": (1.0, "hertz"), "kHz": (1e3, ""), "MHz": (1e6, ""), "GHz": (1e9, "")},
    "time": {"s": (1.0, "sec secs second seconds seconde secondes"), "min": (60.0, "mins minute minutes"),
             "h": (3600.0, "hr hrs hour hours heure heures"), "d": (86400.0, "day days jour jours"),
             "month": (2629746.0, "months mois"), "year": (31556952.0, "yr yrs years an ans annee annees")},
    "share": {"%": (1.0, "percent pourcent")},
    "temperature": {"°C": (1.0, "celsius")},
    "count": {"pcs": (1.0, "pc piece pieces pack packs count unit units unite unites pk")},
}  # fmt: skip
# Folding drops case, which tells mW from MW; only one of each pair is anything a shop sells.
_KNOWN: Final = {
    " ".join(folded_words(word)): (what, unit, size)
    for what, units in _UNITS.items()
    for unit, (size, words) in units.items()
    for word in (unit, *words.split())
}
_SIGNS: Final = {'"': "in", "″": "in", "”": "in", "''": "in", "'": "ft", "′": "ft", "’": "ft"}
_VULGAR: Final = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5",
    "⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8",
}  # fmt: skip
_VULGAR_SIGN = re.compile(f"[{''.join(_VULGAR)}]")
_NUMBER = (
    r"(?P<sign>-)?(?:(?:(?P<whole>\d{1,9})(?:\s+|\s?-\s?))?(?P<over>\d{1,6})\s?[/\u2044]\s?(?P<under>\d{1,6})"
    r"|(?P<plain>\d{1,3}(?: \d{3})+(?:[.,]\d{1,9})?|\d{1,15}(?:[.,]\d{1,15}){0,5}|[.,]\d{1,9}))(?![\d/\u2044])"
)
_UNIT = r"(?P<unit>fl\.?\s?oz\b|[^\W\d_]{1,20}|''|[\"'″”′’%]|°\s?c\b)?"
QUANTITY: Final = re.compile(rf"(?<![\w.,/\u2044-]){_NUMBER}\s*-?\s*{_UNIT}\.?", re.IGNORECASE)
"""One number with what may be its unit."""


def known_unit(unit: str) -> bool:
    """Whether numbers can be brought to this unit."""
    return _unit(unit) is not None


def measured(unit: str) -> str | None:
    """What a unit measures, such as "length"; None where it is unknown."""
    found = _unit(unit)
    return found[0] if found else None


def read_number(text: str, unit: str | None) -> str | None:
    """One quantity as a plain number in `unit`: "5 in" is "127" mm.

    A number without a unit is taken to be in `unit` already. Several writings of one quantity ("90 inch / 230 cm")
    are read as the one that is in `unit`, else as the first. A comma before three digits parts thousands.

    Returns:
        Six digits that count, all of a whole number, such as "12.5"; None where the text is anything else than one
        quantity, or measures something else.
    """
    parts = [part for part in re.split(r"\s[/|]\s|\(|\)|=", text) if part.strip()]
    if not parts or len(parts) > 4:
        return None
    found = []
    for part in parts:
        read = _quantity(part.strip(), unit)
        if read is None:
            return None
        found.append(read)
    # Two numbers without units are two numbers.
    if len(found) > 1 and not all(written for _, written in found):
        return None
    if len(found) > 1 and max(n for n, _ in found) > 1.1 * min(n for n, _ in found):
        return None
    return shown(next((number for number, written in found if unit and written == unit), found[0][0]))


def quantities(text: str) -> list[tuple[int, float, str]]:
    """The numbers with units in a running text: where each begins, its size in base units, what it measures."""
    found = []
    for match in QUANTITY.finditer(text):
        known = _unit(match["unit"]) if match["unit"] else None
        if known is not None and (number := _number(match)) is not None:
            found.append((match.start(), number * known[2], known[0]))
    return found


def in_unit(base: float, unit: str) -> str:
    """A size in base units (of `quantities`) as a plain number in `unit`, which must be known."""
    known = _unit(unit)
    if known is None:
        raise ValueError(f"no unit: {unit}")
    return shown(base / known[2])


def shown(number: float) -> str:
    """At most six digits that count (all of a whole number), never with an exponent."""
    if number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    places = max(0, 5 - math.floor(math.log10(abs(number))))
    text = f"{round(number, 5 - math.floor(math.log10(abs(number)))):.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _quantity(text: str, unit: str | None) -> tuple[float, str | None] | None:
    """The number in `unit`, and the unit that was written."""
    total, end, smallest = 0.0, 0, math.inf
    first: str | None = None
    target = _unit(unit) if unit else None
    if unit and target is None:
        return None
    for match in QUANTITY.finditer(text):
        if text[end : match.start()].strip(" ,") or (end and first is None):
            return None
        number = _number(match)
        if number is None:
            return None
        if match["unit"] is None:
            if end:
                return None
            factor, written = 1.0, None
        else:
            known = _unit(match["unit"])
            if known is None:
                return None
            if target is None:
                if known[0] != "count":
                    return None
                factor, written = 1.0, known[1]
            else:
                if known[0] != target[0]:
                    return None
                # 5 ft 10 in: the smaller follows the greater.
                if end and known[2] >= smallest:
                    return None
                factor, written = known[2] / target[2], known[1]
                smallest = known[2]
        first = written if not end else first
        total += number * factor
        end = match.end()
    if not end or text[end:].strip(" ."):
        return None
    return total, first


def _number(match: re.Match[str]) -> float | None:
    sign = -1.0 if match["sign"] else 1.0
    if match["over"]:
        under = int(match["under"])
        return sign * (int(match["whole"] or 0) + int(match["over"]) / under) if under else None
    plain = match["plain"].replace(" ", "")
    dots, commas = plain.count("."), plain.count(",")
    if dots and commas:
        mark = max(".,", key=plain.rfind)
        plain = plain.replace("," if mark == "." else ".", "").replace(",", ".")
    elif commas > 1 or (commas and re.fullmatch(r"[1-9]\d{0,2},\d{3}", plain)):
        plain = plain.replace(",", "")
    elif dots > 1:
        plain = plain.replace(".", "")
    try:
        return sign * float(plain.replace(",", "."))
    except ValueError:
        return None


def _unit(unit: str) -> tuple[str, str, float] | None:
    if unit in _SIGNS:
        return _KNOWN[_SIGNS[unit]]
    return _KNOWN.get(" ".join(folded_words(unit.replace(".", " "))))


def spell_fractions(text: str) -> str:
    """1½ as 1 1/2; to be done before `product.clean`, to which it is 11/2."""
    return text if text.isascii() else _VULGAR_SIGN.sub(lambda match: f" {_VULGAR[match[0]]}", text)
