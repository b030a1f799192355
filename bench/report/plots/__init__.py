"""Figures for slides, from records alone; one file a figure."""
