"""Settings as values, and the files that they are read from."""
