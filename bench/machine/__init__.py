"""What this machine is, and what disturbs it while it measures."""
