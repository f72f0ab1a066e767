"""The embedded default: a small world of drawn shapes, its benchmarks, and a small LLaVA taught on it."""
