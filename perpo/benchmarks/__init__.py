"""Benchmarks as data: questions, metrics, meanings. No torch."""
