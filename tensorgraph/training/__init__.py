"""Training of potentials: from a config to a checkpoint."""
