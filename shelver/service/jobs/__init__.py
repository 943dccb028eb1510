"""Jobs: what takes longer than a request; `shelver worker` does them."""
