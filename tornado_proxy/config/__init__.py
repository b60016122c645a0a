"""Configuration files: reading, checking against schemas, and the settings they come to.  Knows no other room."""
