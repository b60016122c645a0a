"""Parsing and reading that several providers share."""
