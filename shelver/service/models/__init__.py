"""The model that answers, and what belongs to it: policies and the tree."""
