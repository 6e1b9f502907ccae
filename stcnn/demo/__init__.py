"""Synthetic recordings with planted tuning, their scores, the benchmark; can be taken away."""
