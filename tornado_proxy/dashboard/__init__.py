"""The web dashboard: pages about cost on the client port and on the admin port (docs/dashboard.md)."""
