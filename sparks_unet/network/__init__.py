"""The networks, their losses, their weights on disk and the way through them."""
