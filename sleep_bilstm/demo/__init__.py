"""Synthetic recordings, planted truth, benchmark cases; own data run without this wing."""
