"""Architectures: backbones, and the objectives that turn them into models. Never imports `bench`."""
