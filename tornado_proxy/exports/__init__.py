"""Exports: the records of the ledger in the formats of other programs, printed or pushed."""
