"""Synthetic data with planted truth and benchmark cases; own data run without this wing."""
