"""Reads configuration files, checks them against their schemas, and turns them into settings and projects."""
