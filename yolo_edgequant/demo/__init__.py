"""The embedded default: images drawn on the spot and a detector trained on such images."""
