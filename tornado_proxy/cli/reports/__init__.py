"""Commands that read the ledger: usage, bills of requests, exports."""
