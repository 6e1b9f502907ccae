"""Arrays to numbers and figures."""
