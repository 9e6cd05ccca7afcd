"""A model and cases become one row a case, channel and metric."""
