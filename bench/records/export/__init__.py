"""Records for trackers, each through its own library: MLflow, Weights & Biases, TensorBoard."""
