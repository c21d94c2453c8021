"""What comparisons say: tables, figures, the guard, and pages."""
