"""``.tflite`` files: PyTorch to a float graph, its statistics and ranges, and the INT8 file made of them."""
