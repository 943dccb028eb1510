"""Jobs: takes them from the table of the service and runs each in a process of its own.

runner.py      takes a job, starts its process, keeps the lease, stops the process
child.py       that process
attempt.py     what one attempt works with, and how it says how far it came
parts.py       work that is cut into parts, each done once, whatever is killed
training.py    train: stored products and a catalog become a registered model
evaluating.py  evaluate: a registered model on a catalog
predicting.py  predict: answers for a feed, or for stored products
importing.py   import_products and reset_demo: products of a feed become stored ones
stored.py      stored products as a feed
"""
