"""Architectures: backbones, and the objectives that make models of them. Never imports bench."""
