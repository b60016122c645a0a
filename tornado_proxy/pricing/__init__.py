"""The cost of a request: price files to a price book, usage to line items.  Exact decimals, no I/O."""
