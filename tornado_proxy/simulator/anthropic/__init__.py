"""Handlers of the simulated Anthropic API: messages, message batches, legacy completions."""
