"""Sections of proxy.yaml: each file reads one, and checks rules that no schema can express."""
