"""OpenAI's API: endpoints, request parsing, usage, headers, errors."""
