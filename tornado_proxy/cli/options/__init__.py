"""Options and parameters that several commands have."""
