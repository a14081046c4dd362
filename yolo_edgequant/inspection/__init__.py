"""What is in a quantized file, whoever made it: where it runs, what is wrong with it, and where it is noisy."""
