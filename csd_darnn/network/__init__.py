"""The model, its weights on disk, and the forward pass."""
