"""Budgets: counters of what was spent, and reservations of what requests under way can spend."""
