"""The review: what waits for people, who decides it, what they decided."""
