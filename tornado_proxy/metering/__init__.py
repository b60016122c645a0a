"""From response bytes to a rated ledger record."""
