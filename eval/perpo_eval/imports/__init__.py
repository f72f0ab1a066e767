"""perpo-eval import: from anybody's predictions to a stored run record."""
