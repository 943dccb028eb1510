"""The store of models that a service and its jobs run from: which there are, and which one answers.

A model comes in as a copy, named by its content; nothing of it is loaded before its bytes are as its manifest
says, and the first time in a process of its own. Aliases say which one answers (champion), which one may be next
(challenger) and which one answered before (previous).

store.py    ModelStore: register, list, promote, roll back
aliases.py  champion, challenger, previous: read, change
records.py  what is noted of a model, and of which one is what
remote.py   the same in object storage
intake.py   a folder from outside, copied in without trusting it
trial.py    the first load, in a child process
child.py    what that process does
"""

from shelver.library.records import Alias, Aliases, Registered
from shelver.library.store import ModelStore
from shelver.library.trial import TRIAL_LIMIT_S, try_in_child

__all__ = ["TRIAL_LIMIT_S", "Alias", "Aliases", "ModelStore", "Registered", "try_in_child"]
