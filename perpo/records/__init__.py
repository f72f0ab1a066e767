"""Records that runs leave behind: run records, training records, where they lie, what made them. No torch."""
