"""Checks of the settings before anything loads: files, names, models, sizes, the machine."""
