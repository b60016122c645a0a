"""The providers' APIs as data and sans-I/O readers: routes, request fields, usage, errors, headers."""
