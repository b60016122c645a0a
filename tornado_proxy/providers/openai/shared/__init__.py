"""Usage parsing and response readers that several OpenAI endpoints share."""
