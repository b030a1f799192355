"""A metric over commits: where it changed, and how far it came since a release."""
