"""From PyTorch to the float graph of each format."""
