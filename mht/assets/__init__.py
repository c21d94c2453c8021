"""Models as they come: bundled ones, hub names, folders, fresh ones."""
