"""From a float graph and images to an INT8 graph."""
