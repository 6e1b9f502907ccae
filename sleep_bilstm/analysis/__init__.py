"""Arrays to numbers and figures: metrics, maps, hypnograms, attention."""
