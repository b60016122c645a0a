"""Who is let in: credentials to callers, callers to what they may use.  No I/O."""
