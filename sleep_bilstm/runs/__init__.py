"""Training, tests, prediction of whole data sets."""
