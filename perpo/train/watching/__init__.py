"""Watch a model while it trains: held-out answers, and a probe of one list."""
