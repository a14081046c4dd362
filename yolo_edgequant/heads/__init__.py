"""Detection heads: the arithmetic that turns convolution outputs into boxes and scores."""
