"""The built-in algorithms, as params.yaml names them."""
