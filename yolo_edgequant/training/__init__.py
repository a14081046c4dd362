"""Activations that the device runs, quantization-aware training, and the distillation that wins accuracy back."""
