"""Open questions for lmms-eval whose answers a judge scores: LLaVA-Bench-in-the-Wild, MMHal-Bench, the tiny world's."""
