"""Language models in the formats of their own families, read and written."""
