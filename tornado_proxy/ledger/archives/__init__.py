"""Archives of old records: files whose hashes form a chain, and the removal of the records in them."""
