"""Reports over prices and records: explain, recompute, coverage."""
