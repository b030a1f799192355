"""The processes of cells: how they start, what they may take, how they end."""
