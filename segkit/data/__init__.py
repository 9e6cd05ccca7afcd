"""Cases become splits, samples and batches."""
