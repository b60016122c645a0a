"""Counts what the records of the ledger have cost, in counters of the budgets."""
