"""A report for people: `report.html`, one offline file, and the model card, from what `shelver.evaluate` measured.

words.py       what the figures are called and mean; a manifest in words
markup.py      the few pieces of HTML that a page is made of
sections.py    the parts of the page
trust.py       those on confidence: calibration, risk and coverage, policies
attributes.py  that on attributes
mistakes.py    those on mistakes: the matrix, siblings, the tree
page.py        `write_html`: one file of limited size, without scripts
card.py        `write_card`: the README.md of a model folder
publish.py     `publish`: all that an evaluation leaves behind
"""

from shelver.report.card import write_card
from shelver.report.page import MAX_BYTES, PAGE, write_html
from shelver.report.publish import learning_rows, publish

__all__ = ["MAX_BYTES", "PAGE", "learning_rows", "publish", "write_card", "write_html"]
