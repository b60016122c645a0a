"""The ledger: intents before a request is sent, one record when it has ended, queries over both."""
