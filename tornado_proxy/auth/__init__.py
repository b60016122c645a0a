"""Authentication and authorization: credentials to callers, callers to models.  Does no I/O."""
