"""OpenAI's API: routes, request fields, usage, errors."""
