"""Synthetic data with planted truth, and the benchmarks; own data run without this wing."""
