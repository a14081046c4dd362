"""OpenVINO models: PyTorch to a float graph, and the INT8 model that NNCF makes of it."""
