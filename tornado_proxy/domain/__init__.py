"""Frozen values that all other packages use, and all errors.  No I/O, no provider names."""
