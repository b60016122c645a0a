"""The login of a person on this machine: obtained, stored, refreshed, revoked."""
