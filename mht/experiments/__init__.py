"""Many settings side by side: variants, seeds, search."""
