"""What the settings ask for and cannot have, before anything loads."""
