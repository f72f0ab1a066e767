"""perpo-eval: from a model, or answers made elsewhere, to a stored run."""
