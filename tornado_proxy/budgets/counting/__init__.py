"""Counts the cost of the ledger's records in the counters of the budgets."""
