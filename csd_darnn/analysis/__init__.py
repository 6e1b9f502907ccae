"""Arrays become numbers and figures."""
