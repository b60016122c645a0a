"""The terminal dashboard of the local proxy: a process of its own, which the relay sends its figures to."""
