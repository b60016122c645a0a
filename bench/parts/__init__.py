"""What is measured, one file a subject; each gives figures of one round for one contestant."""
