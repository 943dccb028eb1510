"""Learned extraction: what a title says of itself, attribute by attribute.

`Extractor.fit(examples)` learns from titles in which people marked values; `extractor(titles, categories)` finds
the values in others, those that it never saw included. See `choice` for the model, `words` for what it looks at,
`known` for its dictionary.
"""

from shelver.extract.examples import Example, Tally, tally
from shelver.extract.model import Column, Extractor
from shelver.extract.schema import ExtractSpec, Schema

__all__ = ["Column", "Example", "ExtractSpec", "Extractor", "Schema", "Tally", "tally"]
