"""What is looked at while a model trains: held-out answers, and a probe of one list."""
