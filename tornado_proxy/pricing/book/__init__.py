"""Price files to a price book, and usage to line items."""
