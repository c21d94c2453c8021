"""Model folders that others made: read with care, and checked once loaded."""
