"""Reports over prices and records: explanations, recomputed amounts, coverage.  Pure functions for commands."""
