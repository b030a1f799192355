"""Probes, a file each; what they share is in `bench.tasks.probe`."""
