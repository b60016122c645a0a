"""Sums of records by hour and by day: their rows, their correction and their comparison with the records."""
