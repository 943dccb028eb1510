"""Why a product stands where it does: the words and the region of the picture that carried the answer.

What is taken for a reason has been taken away, and the model asked again.

words.py    words of the raw texts, and the product without some
regions.py  regions of the picture, and what a network sees without one
search.py   explain
"""

from shelver.explain.regions import Seen, see
from shelver.explain.search import CarryingRegion, CarryingWord, Explanation, explain
from shelver.explain.words import Place, Word, without, words_of

__all__ = [
    "CarryingRegion",
    "CarryingWord",
    "Explanation",
    "Place",
    "Seen",
    "Word",
    "explain",
    "see",
    "without",
    "words_of",
]
