"""Training samples that live on the device, and are transformed there."""
