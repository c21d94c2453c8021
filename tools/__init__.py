"""Commands for those who work on MHT itself."""
