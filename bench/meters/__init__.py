"""How a quantity is taken. One file a quantity."""
