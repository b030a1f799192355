"""What papers say of architectures on probes, run here: `python -m benchmarks.reproduce`."""
