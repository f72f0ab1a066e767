"""A blind vote on the answers of two runs."""
