"""Learning: configurations, the training loop, batches, checkpoints, sharding, logs, signals."""
