"""The programs of a developer's machine: sessions, the local proxy, and the environment of tools."""
