"""Asks OAuth issuers for their keys and about opaque tokens, within bounds, and remembers the answers."""
