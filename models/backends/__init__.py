"""Other implementations of our models: the same weights, computed by the libraries' own classes."""
