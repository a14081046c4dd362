"""One profile for each export format, as data."""
