"""The training run: batches, one step, clocks, statistics of the trained weights, checkpoint."""
