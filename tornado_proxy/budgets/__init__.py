"""Budgets: counters of spend, and reservations for requests under way."""
