"""Learning curves of the variants: their bands over seeds, and how soon a score is reached."""
