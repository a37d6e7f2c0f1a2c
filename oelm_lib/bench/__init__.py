"""Speed of the training step against other implementations and the machine's limit."""
