"""One request or session from admission to its ledger record."""
