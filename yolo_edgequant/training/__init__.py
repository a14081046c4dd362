"""Activations that the device runs, and training that wins the accuracy back."""
