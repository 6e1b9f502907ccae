"""Training, prediction and pictures of whole data sets, and the report of a run."""
