"""The write path of a ledger: queue, writer thread, intent log, journal, process locks."""
