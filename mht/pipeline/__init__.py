"""What every stage does around its work."""
