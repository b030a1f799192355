"""What is read out of the records: reads the store only and imports no torch."""
