"""What the demo's sellers write: titles and descriptions from small grammars, and each seller's bad habits."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from shelver.datasets.generated_tree import Shelf


@dataclass(frozen=True, slots=True)
class Seller:
    """One source of listings.

    Attributes:
        name: what stands in the column `source`.
        languages: "en", "fr" and how often.
        background: how it photographs, see `generated_pictures.BACKGROUNDS`.
        share: of all listings.
        p_typo: of one slip in a word.
        p_vague: of a title that only a picture makes clear.
        p_parcel: of a photo that shows the cardboard box the product comes in.
        p_closeup: of a photo from so near that little of the shape is left.
        mojibake, tags, entities, shouting: shares of texts with that habit.
    """

    name: str
    languages: dict[str, float]
    background: str
    quality: tuple[int, int]
    share: float
    p_typo: float
    p_vague: float
    p_parcel: float
    p_closeup: float
    mojibake: float = 0.0
    tags: float = 0.0
    entities: float = 0.0
    shouting: float = 0.0


SELLERS = (
    Seller("northwind", {"en": 1.0}, "studio", (80, 92), 0.34, 0.005, 0.08, 0.05, 0.06, tags=0.1, entities=0.1),
    Seller(
        "megadeals",
        {"en": 0.9, "fr": 0.1},
        "gradient",
        (60, 80),
        0.22,
        0.03,
        0.20,
        0.28,
        0.10,
        tags=0.5,
        shouting=0.3,
    ),
    Seller(
        "maison-claire",
        {"fr": 0.9, "en": 0.1},
        "table",
        (75, 90),
        0.20,
        0.008,
        0.10,
        0.10,
        0.08,
        entities=0.5,
        tags=0.3,
    ),
    Seller(
        "brocante-lune", {"fr": 1.0}, "paper", (50, 75), 0.14, 0.05, 0.24, 0.15, 0.25, mojibake=0.15, shouting=0.15
    ),
    Seller(
        "old-import",
        {"en": 0.6, "fr": 0.4},
        "shop",
        (35, 60),
        0.10,
        0.04,
        0.22,
        0.30,
        0.20,
        mojibake=0.5,
        tags=0.2,
    ),
)

_BRANDS = (
    *("Alderby", "Brumont", "Calvoy", "Dunmark", "Elvora", "Fenwick", "Galpin", "Hestia", "Ilmaro", "Jorvik"),
    *("Kestrel", "Lumeo", "Marwen", "Nordika", "Orsay", "Pellham", "Quintal", "Rivoli", "Solvane", "Tamarin"),
    *("Umbra", "Velance", "Wexcote", "Xenia", "Yarrow", "Zephir", "Ambrelle", "Boreal", "Corvane", "Doriane"),
)
_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "adjective": (
            *(
                "new",
                "premium",
                "classic",
                "modern",
                "stylish",
                "compact",
                "deluxe",
                "original",
                "vintage",
                "soft",
            ),
            *("handmade", "durable", "elegant", "everyday", "lightweight", "practical", "urban", "essential"),
        ),
        "tail": (
            "for men",
            "for women",
            "for kids",
            "gift idea",
            "best seller",
            "new season",
            "pack of 2",
            "unisex",
        ),
        "fact": (
            "Carefully made with attention to detail",
            "Easy to clean and made to last",
            "A great gift for family and friends",
            "Comes in its original packaging",
            "Our customers love the finish",
            "Designed in our own studio",
            "Small batch, limited quantity",
            "Suitable for everyday use",
        ),
        "opening": (
            "This {noun} by {brand} comes in {colour}",
            "The {adjective} {noun} from {brand}, now in {colour}",
            "Meet our {adjective} {noun}, which brings joy to your day",
            "A {adjective} {noun} that fits in anywhere",
        ),
        "spam": ("FREE SHIPPING", "BEST PRICE", "100% ORIGINAL", "HOT SALE", "24h delivery", "***", "!!!", "L@@K"),
        "boilerplate": (
            "Free returns within 30 days. Prices include VAT. Colours may differ slightly from the picture.",
            "Buy with confidence from a trusted seller. Contact us for bulk orders.",
        ),
    },
    "fr": {
        "adjective": (
            *(
                "neuf",
                "haut de gamme",
                "classique",
                "moderne",
                "élégant",
                "compact",
                "luxe",
                "authentique",
                "rétro",
            ),
            *(
                "fait main",
                "résistant",
                "léger",
                "pratique",
                "très doux",
                "idéal",
                "intemporel",
                "qualité supérieure",
            ),
        ),
        "tail": (
            "pour homme",
            "pour femme",
            "pour enfant",
            "idée cadeau",
            "nouvelle collection",
            "lot de 2",
            "mixte",
        ),
        "fact": (
            "Fabriqué avec soin, jusque dans les détails",
            "Facile à nettoyer et conçu pour durer",
            "Un cadeau apprécié de toute la famille",
            "Livré dans son emballage d'origine",
            "Nos clients adorent la qualité des finitions",
            "Créé dans notre atelier",
            "Série limitée, quantité réduite",
            "Convient à un usage quotidien",
        ),
        "opening": (
            "{brand} vous propose ce modèle : {noun} {adjective}, couleur {colour}",
            "Découvrez chez {brand} : {noun}, existe en {colour}",
            "Modèle {adjective} ({noun}) qui égaye votre journée",
            "Produit {brand} : {noun}, disponible en {colour}",
        ),
        "spam": (
            "LIVRAISON OFFERTE",
            "PROMO",
            "PRIX CASSÉ",
            "TOP VENTE",
            "expédié sous 24h",
            "***",
            "!!!",
            "à saisir",
        ),
        "boilerplate": (
            "Retours gratuits sous 30 jours. Prix TTC. Les couleurs peuvent différer légèrement de la photo.",
            "Achetez en toute confiance chez un vendeur vérifié. Contactez-nous pour les grandes quantités.",
        ),
    },
}
_COLOURS_FR = {
    "red": "rouge",
    "blue": "bleu",
    "navy": "bleu marine",
    "green": "vert",
    "yellow": "jaune",
    "orange": "orange",
    "pink": "rose",
    "purple": "violet",
    "brown": "marron",
    "grey": "gris",
    "black": "noir",
    "white": "blanc",
    "turquoise": "turquoise",
    "beige": "beige",
}
# Materials and sizes are shared by a department: they narrow a search without ending it.
_MATERIALS: dict[str, dict[str, tuple[str, ...]]] = {
    "Clothing": {"en": ("cotton", "linen", "wool blend", "viscose"), "fr": ("coton", "lin", "laine", "viscose")},
    "Shoes": {
        "en": ("leather", "suede", "canvas", "rubber sole"),
        "fr": ("cuir", "daim", "toile", "semelle gomme"),
    },
    "Bags": {"en": ("leather", "nylon", "canvas", "polyester"), "fr": ("cuir", "nylon", "toile", "polyester")},
    "Home & Kitchen": {"en": ("scandi", "oak", "steel", "boho"), "fr": ("scandinave", "chêne", "acier", "bohème")},
    "Electronics": {"en": ("black edition", "fast", "HD", "pro"), "fr": ("rapide", "HD", "pro", "série noire")},
    "Toys & Games": {"en": ("age 3+", "educational", "safe"), "fr": ("dès 3 ans", "éducatif", "sans danger")},
    "Books": {
        "en": ("illustrated", "2nd edition", "bestselling"),
        "fr": ("illustré", "2e édition", "collection poche"),
    },
    "Films & Music": {"en": ("region 2", "remastered", "sealed"), "fr": ("zone 2", "remasterisé", "sous blister")},
    "Beauty": {"en": ("250 ml", "vegan", "aloe vera"), "fr": ("250 ml", "végétalien", "aloe vera")},
    "Garden": {"en": ("outdoor", "galvanised", "terracotta"), "fr": ("extérieur", "galvanisé", "terre cuite")},
    "Sports": {"en": ("pro", "carbon", "training"), "fr": ("pro", "carbone", "entraînement")},
}


# What those words say of the material, in English.
_STUFFS = {
    **{word: word for word in ("cotton", "linen", "viscose", "leather", "suede", "canvas", "nylon", "polyester")},
    **{word: word for word in ("oak", "steel", "terracotta", "carbon")},
    "wool blend": "wool",
    "rubber sole": "rubber",
    "coton": "cotton",
    "lin": "linen",
    "laine": "wool",
    "cuir": "leather",
    "daim": "suede",
    "toile": "canvas",
    "semelle gomme": "rubber",
    "chêne": "oak",
    "acier": "steel",
    "terre cuite": "terracotta",
    "carbone": "carbon",
}


@dataclass(frozen=True, slots=True)
class Text:
    """A listing's words; None where the seller left a field empty, or said no material."""

    title: str | None
    description: str | None
    brand: str | None
    material: str | None


def write_text(rng: Random, shelf: Shelf, seller: Seller, language: str, colour: str) -> Text:
    """Words for one product, with the seller's noise; the same state of `rng` writes the same words."""
    words = _WORDS[language]
    vague = rng.random() < seller.p_vague
    nouns = (shelf.vague if vague else shelf.nouns)[language]
    # One noun for title and description: a vague title has a vague description.
    noun = nouns[min(int(rng.expovariate(1.2)), len(nouns) - 1)]
    brand = rng.choice(_BRANDS)
    hue = colour if language == "en" else _COLOURS_FR[colour]
    title, material = _title(rng, shelf, noun, brand, hue, language)
    description = None
    if rng.random() < 0.7:
        description = _description(rng, noun, brand, hue, words)
    title = _slips(rng, title, seller.p_typo)
    if description is not None:
        description = _slips(rng, description, seller.p_typo / 2)
        if rng.random() < 0.4:
            description += " " + rng.choice(words["boilerplate"])
    if rng.random() < seller.shouting:
        title = title.upper() if rng.random() < 0.6 else title
        title = f"{rng.choice(words['spam'])} {title} {rng.choice(words['spam'])}"
    if description is not None and rng.random() < seller.tags:
        description = _tagged(rng, description)
    if rng.random() < seller.entities:
        title = _escaped(title)
        description = description if description is None else _escaped(description)
    if rng.random() < seller.mojibake:
        title = _garbled(title)
        description = description if description is None else _garbled(description)
    return Text(title, description, brand if rng.random() < 0.7 else None, material)


def _title(rng: Random, shelf: Shelf, noun: str, brand: str, hue: str, language: str) -> tuple[str, str | None]:
    """A title, and the material that it says."""
    words = _WORDS[language]
    material = rng.choice(_MATERIALS[shelf.path.split(" > ")[0]][language])
    model = f"{rng.choice('ABCDKLMNRSTXZ')}{rng.randint(10, 999)}"
    parts = [brand] if rng.random() < 0.75 else []
    described = [rng.choice(words["adjective"])] if rng.random() < 0.6 else []
    if language == "en":
        parts += [*described, *([hue] if rng.random() < 0.5 else []), noun]
    else:
        parts += [noun, *described, *([hue] if rng.random() < 0.5 else [])]
    said: str | None = None
    if rng.random() < 0.55:
        parts.append(material)
        said = _STUFFS.get(material)
    if rng.random() < 0.6:
        parts.append(model)
    if rng.random() < 0.3:
        parts.append(rng.choice(words["tail"]))
    title = (" - " if rng.random() < 0.1 else " ").join(parts)
    return title[0].upper() + title[1:], said


def _description(rng: Random, noun: str, brand: str, hue: str, words: dict[str, tuple[str, ...]]) -> str:
    adjective = rng.choice(words["adjective"])
    sentences = [rng.choice(words["opening"]).format(noun=noun, brand=brand, adjective=adjective, colour=hue)]
    sentences += rng.sample(words["fact"], rng.randint(1, 3))
    return ". ".join(sentences) + "."


def _slips(rng: Random, text: str, p_typo: float) -> str:
    """Swaps, drops or doubles a letter in some words."""
    words = text.split(" ")
    for place, word in enumerate(words):
        if len(word) > 3 and rng.random() < p_typo:
            at = rng.randrange(1, len(word) - 1)
            how = rng.randrange(3)
            if how == 0:
                word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
            elif how == 1:
                word = word[:at] + word[at + 1 :]
            else:
                word = word[:at] + word[at] + word[at:]
            words[place] = word
    return " ".join(words)


def _tagged(rng: Random, text: str) -> str:
    sentences = text.split(". ")
    if rng.random() < 0.5:
        return "<p>" + ".<br />".join(sentences) + "</p>"
    items = "".join(f"<li>{sentence}</li>" for sentence in sentences)
    return f'<div class="desc"><style>.desc {{color:#333}}</style><ul>{items}</ul></div>'


def _escaped(text: str) -> str:
    """As an export through one tool too many leaves it."""
    accents: Sequence[tuple[str, str]] = (
        ("é", "&eacute;"),
        ("è", "&egrave;"),
        ("à", "&agrave;"),
        ("ê", "&ecirc;"),
    )
    text = html.escape(text, quote=True).replace("&#x27;", "&#39;")
    for char, entity in accents:
        text = text.replace(char, entity)
    return text


def _garbled(text: str) -> str:
    """UTF-8 read as Windows-1252: 'é' becomes 'Ã©'."""
    return text.encode("utf-8").decode("cp1252", errors="replace")
