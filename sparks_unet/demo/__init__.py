"""Synthetic movies with planted truth and the cases of the benchmark; own data need none of it."""
