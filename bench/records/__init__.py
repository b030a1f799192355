"""`python -m bench records …`: look into stores, join them, clear them up, pass them on."""
