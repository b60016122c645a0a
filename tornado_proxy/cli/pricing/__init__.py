"""The commands of `tornado-proxy pricing`."""
