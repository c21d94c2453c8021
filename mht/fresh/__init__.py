"""Fresh models: kinds that are made here with random weights, and their tokenizer."""
