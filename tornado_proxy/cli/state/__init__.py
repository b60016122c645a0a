"""Commands that change what the servers read while they run: access keys, budgets, stops."""
