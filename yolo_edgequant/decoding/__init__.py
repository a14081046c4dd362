"""The arithmetic from a head's outputs to boxes, in torch and in NumPy; tests hold the two against each other."""
