"""What the variants are measured by: metrics, statistics, and the benchmark that compares."""
