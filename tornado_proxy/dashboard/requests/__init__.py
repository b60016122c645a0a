"""The pages of requests: those that have ended, those that run, and those whose cost is not known."""
