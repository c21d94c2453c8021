"""From raw rows to prepared splits."""
