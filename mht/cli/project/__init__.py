"""Commands about a project as a whole: making one, looking after it, its runs."""
