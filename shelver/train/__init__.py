"""Learning: from a catalog to a model folder. The only home of torch.

Read `run.py` first: it is the recipe. `config.py` says what can be chosen, `data.py` what is learned from,
`model.py` and `losses.py` what is learned, `loop.py` how, `export.py` what becomes of it.
"""

import os

# Before torch is imported, since its threads read this once. Threads that wait for each other in a loop, as they
# do unless told otherwise, are 30 times slower where the machine does other work too; asleep they cost little.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
