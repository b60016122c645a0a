"""Usage parsing that several OpenAI endpoints share."""
