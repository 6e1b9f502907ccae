"""Whole jobs: training, predictions for any stimulus, figures of a set or a run, the report."""
