"""Model, losses, checkpoints, forward pass."""
