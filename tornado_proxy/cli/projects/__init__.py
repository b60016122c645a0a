"""Commands that write projects, their keys and their tokens."""
