"""The state of the server that changes while it runs: kept in the ledger's database, shared by all processes."""
