"""The part of a layer that mixes symbols over time: what it has to offer, and those by name."""
