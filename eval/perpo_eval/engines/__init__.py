"""Who answers for perpo-eval: our own engine, or any model that lmms-eval knows."""
