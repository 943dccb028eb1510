"""Words, numbers and times in the language of the reader.

The English texts stand in templates and code; `locales/fr/*.po` have the French ones, a file a group of pages.
They are read when the first page is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Final, Literal, get_args

from babel.dates import format_datetime
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_compact_decimal, format_decimal, format_percent
from babel.support import Translations
from fastapi import Request
from markupsafe import Markup

Language = Literal["en", "fr"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)
NAMES: Final[Mapping[Language, str]] = {"en": "English", "fr": "Français"}
COOKIE: Final = "shelver_language"
LOCALES: Final = Path(__file__).parent.parent / "locales"


def mark(text: str) -> str:
    """The same text; it marks one in a table of constants, to be translated where it is shown."""
    return text


@dataclass(frozen=True)
class Words:
    """How things are said in one language.

    Attributes:
        language: which.
        translations: as gettext knows them.
    """

    language: Language
    translations: Translations

    def __call__(self, text: str, **values: object) -> str:
        """The text in this language, with `%(name)s` filled in."""
        said = self.translations.gettext(text)
        return said % values if values else said

    def several(self, one: str, many: str, n: int, **values: object) -> str:
        """The text for n of something, which it calls `%(num)s`."""
        return self.translations.ngettext(one, many, n) % {"num": self.number(n), **values}

    def number(self, value: float, digits: int = 0) -> str:
        """A number with its separators."""
        return format_decimal(round(value, digits), locale=self.language, decimal_quantization=False)

    def compact(self, value: float) -> str:
        """A large number in few characters, such as 12K."""
        return format_compact_decimal(value, locale=self.language, fraction_digits=1)

    def percent(self, share: float, digits: int = 0) -> str:
        """A share from 0 to 1 as per cent."""
        return format_percent(round(share, digits + 2), locale=self.language, decimal_quantization=False)

    def when(self, at: datetime) -> Markup:
        """A moment as a `<time>`, in UTC; the script `page.js` turns it into the reader's own time."""
        said = format_datetime(at, "d MMM yyyy, HH:mm", locale=self.language)
        return Markup('<time datetime="{}" title="UTC">{}</time>').format(at.isoformat(), said)


@cache
def words_in(language: Language) -> Words:
    """The words of a language."""
    return Words(language, _translations(language))


def language_of(request: Request) -> Language:
    """What the reader chose, or else what the browser asks for first, or English."""
    chosen = request.cookies.get(COOKIE)
    wanted = [chosen] if chosen else []
    asked = []
    for part in request.headers.get("accept-language", "")[:1000].split(","):
        name, _, weight = part.partition(";q=")
        try:
            asked.append((-float(weight or 1), name.strip()[:2].lower()))
        except ValueError:
            continue
    wanted += [name for _, name in sorted(asked, key=lambda one: one[0])]
    return next((language for name in wanted for language in LANGUAGES if language == name), "en")


def words_of(request: Request) -> Words:
    """The words for who made a request: `_ = words_of(request)`, then `_("Saved.")`."""
    return words_in(language_of(request))


def _translations(language: Language) -> Translations:
    merged = Translations()
    for path in sorted((LOCALES / language).glob("*.po")):
        with path.open("rb") as file:
            catalog = read_po(file, locale=language, abort_invalid=True)
        compiled = BytesIO()
        write_mo(compiled, catalog)
        compiled.seek(0)
        merged = _with(merged, Translations(compiled))
    return merged


def _with(known: Translations, more: Translations) -> Translations:
    if not known.files and not getattr(known, "_catalog", None):
        return more
    known.merge(more)
    return known
