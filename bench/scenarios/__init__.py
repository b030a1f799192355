"""What is done with a model while it is measured. One file a scenario, each with a `run`."""
