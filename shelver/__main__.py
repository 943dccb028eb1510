"""`python -m shelver`, and `torchrun ... -m shelver`: the same program as `shelver`."""

from shelver.cli import main

main()
