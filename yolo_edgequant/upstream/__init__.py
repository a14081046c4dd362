"""Facts about Ultralytics, and no patch: its heads and blocks, its data sets, its validation."""
