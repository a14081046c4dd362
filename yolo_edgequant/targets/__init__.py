"""What each export format can hold, as data."""
