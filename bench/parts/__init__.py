"""The parts of the benchmark, one file per subject.  Each measures one contestant in one round."""
