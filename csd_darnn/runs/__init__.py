"""Training, prediction and reports of whole recordings."""
