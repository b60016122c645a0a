"""A small provider that shows what a provider's folder contains: an endpoint, errors, headers, prices."""
