"""What is in a quantized file, whoever made it: where its operators run, what is wrong with it, and where it is noisy."""
