"""The models that rewards ask: loaded once, shared, run in whole batches."""
