"""Base against head: what changed, what did not, and what cannot be told."""
