"""Category trees: an immutable ragged tree as integer arrays, and a reader for each format.

::

    tree = read_taxonomy("taxonomy-with-ids.en-US.txt")      # the format is told by the content
    k = tree.index("3292")
    tree.path(k), tree.children(k), tree.lca([k, 5], [7, 9])
"""

from __future__ import annotations

from shelver.taxonomy.build import ROOT, Notes, plain_name
from shelver.taxonomy.flat import read_flat
from shelver.taxonomy.google import read_google
from shelver.taxonomy.gs1 import read_gs1
from shelver.taxonomy.locale import localise
from shelver.taxonomy.paths import from_id_paths, read_id_paths, read_paths
from shelver.taxonomy.read import TreeFormat, read_taxonomy
from shelver.taxonomy.shopify import read_shopify
from shelver.taxonomy.siblings import SiblingGroups
from shelver.taxonomy.tree import Taxonomy, path_id

__all__ = [
    "ROOT",
    "Notes",
    "SiblingGroups",
    "Taxonomy",
    "TreeFormat",
    "from_id_paths",
    "localise",
    "path_id",
    "plain_name",
    "read_flat",
    "read_google",
    "read_gs1",
    "read_id_paths",
    "read_paths",
    "read_shopify",
    "read_taxonomy",
]
