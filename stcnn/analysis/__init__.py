"""Arrays to numbers and figures: scores, tuning indices, still figures, animations."""
