"""Slices of counters, from which a process reserves without a transaction."""
