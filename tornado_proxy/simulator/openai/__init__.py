"""Handlers of the simulated OpenAI API, one file or folder for each endpoint family."""
