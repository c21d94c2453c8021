"""What the settings ask for and can not get, before anything loads."""
