"""Projects of a user's own: folders with a pipeline that runs the installed package."""
