"""Cases become batches, batches become steps, steps become a checkpoint."""
