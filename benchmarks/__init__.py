"""Side by side against rivals, in one run: `python -m benchmarks.run`, or `make bench`.

data.py      the sets: their catalogs, folds, and the products of a split as a system is asked for them
measure.py   CPU seconds, repeats, the score of a trained system
rivals.py    TF-IDF + LinearSVC, fastText, frozen EfficientNet-Lite0 + logistic regression
ours.py      shelver's own models, each a change of the default config
systems.py   which system answers which set
run.py       the entry: one process a catalog and system, rows in results.json
one.py       what such a process runs
machine.py   on what it was measured
table.py     results.json as tables, on the screen and in docs/benchmarks.md
search.py    how fast nodes of a large tree are found as somebody types
pictures.py  the picture path against decoding plus bare ONNX Runtime
"""
