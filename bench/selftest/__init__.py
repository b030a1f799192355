"""The instrument measures itself: how often it is wrong, and how small a change it finds."""
