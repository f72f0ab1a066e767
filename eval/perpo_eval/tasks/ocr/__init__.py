"""Page reading tasks for lmms-eval: Fox and the tiny world's pages."""
