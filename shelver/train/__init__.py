"""Learning: from a catalog to a model folder. The only home of torch.

Read `run.py` first: it is the recipe. `config.py` says what can be chosen, `data.py` what is learned from,
`model.py` and `losses.py` what is learned, `loop.py` how, `export.py` what becomes of it.
"""
