"""Commands of a developer's machine: login, the local proxy, and tools that use it."""
