"""The training run: batches, steps, clocks, statistics of the trained weights, the checkpoint."""
