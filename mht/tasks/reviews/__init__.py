"""Movie reviews: continue one so that it is positive; the default task."""
