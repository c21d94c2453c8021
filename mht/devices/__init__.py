"""One process or several that train one policy."""
