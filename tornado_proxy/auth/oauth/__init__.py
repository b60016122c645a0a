"""OAuth access tokens: verification and membership, without I/O."""
