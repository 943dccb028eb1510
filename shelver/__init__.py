"""shelver puts every product on the right shelf.

From Python, three lines answer a question::

    from shelver import Classifier, Product

    classifier = Classifier.open("models/fashion")
    predictions = classifier([Product("1", title="Men's navy blue cotton polo shirt")])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shelver.pipeline import Classifier
    from shelver.product import Product

__version__ = "0.1.0"
__all__ = ["Classifier", "Product", "__version__"]


def __getattr__(name: str) -> object:
    # Lazy, so that `import shelver` (and `shelver --help`) does not load NumPy and ONNX Runtime.
    if name == "Classifier":
        from shelver.pipeline import Classifier

        return Classifier
    if name == "Product":
        from shelver.product import Product

        return Product
    raise AttributeError(f"module 'shelver' has no attribute {name!r}")
