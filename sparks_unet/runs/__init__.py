"""Training, validation, prediction of whole data sets, and the report of a run."""
