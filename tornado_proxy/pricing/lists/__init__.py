"""Public price lists: parse, compare, import."""
