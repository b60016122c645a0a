"""Budgets, limits and the spend brake as values."""
