"""The words of the program: frozen values that every other room speaks in.  No I/O, no provider names."""
