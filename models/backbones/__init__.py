"""Backbones: one paper, one readable file."""
