"""The two-stream network, its optimiser, weights on disk and what explains it."""
