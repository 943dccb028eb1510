"""Attributes: what is said of a product beside its category, in one vocabulary whatever words the seller used.

vocabulary.py      Attribute, Value and Vocabulary: values, synonyms, and the nodes that an attribute applies to
read.py            read_vocabulary: tells the format by what stands at a path
shopify.py         Shopify's folder of YAML, or its JSON in every language
lines.py           the small part of YAML that Shopify uses, read line by line
table.py           a vocabulary as CSV
observe.py         a vocabulary out of what a catalog's columns hold
normalise.py       Normaliser: a seller's words to the vocabulary's
extract.py         Extractor: the values that titles, descriptions and specifications state
specification.py   read_specification: pairs of key and value out of one text
units.py           numbers with units
words.py           our own English and French words for colours, materials, patterns, genders, seasons, ages, sizes
fold.py            one form for words that differ in case, accents, spelling or the plural
"""

from shelver.attributes.extract import Extractor
from shelver.attributes.normalise import Normal, Normaliser
from shelver.attributes.observe import observe
from shelver.attributes.read import read_vocabulary
from shelver.attributes.specification import read_specification
from shelver.attributes.vocabulary import EMPTY, Attribute, Kind, Value, Vocabulary

__all__ = [
    "EMPTY",
    "Attribute",
    "Extractor",
    "Kind",
    "Normal",
    "Normaliser",
    "Value",
    "Vocabulary",
    "observe",
    "read_specification",
    "read_vocabulary",
]
