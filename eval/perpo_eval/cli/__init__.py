"""Entry points of perpo-eval, perpo-run and perpo-demo."""
