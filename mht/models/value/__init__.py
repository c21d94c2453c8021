"""What estimates the value of a state: heads on the language model, and how they are fitted."""
