"""Budgets and limits of requests: reserved, refused, reported and stopped."""
