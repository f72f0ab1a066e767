"""What is known of a benchmark, as data: questions, metrics, meanings. No torch."""
