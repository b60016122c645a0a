"""Queries over records: usage sums and record listings."""
