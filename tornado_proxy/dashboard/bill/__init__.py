"""The page of the bill: its URL, its rows and its chart."""
