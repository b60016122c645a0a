"""The simulated model: tokens, prompts, the prompt cache, directives, and the output that follows from them."""
