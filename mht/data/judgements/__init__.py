"""What people judged: rated texts, texts of classes, pairs of answers."""
