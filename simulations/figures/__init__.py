"""From a tidy table to a picture, and nothing else: every number drawn is in the table."""
