"""The kinds of benchmark: how their rows are read, what is asked, and how an answer is scored. No torch."""
