"""Answers: products in, their shelves out; in small batches, with pictures decoded elsewhere."""
