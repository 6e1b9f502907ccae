"""The network: kernels, temporal filters, layers, building, checkpoints, streamed forward pass."""
