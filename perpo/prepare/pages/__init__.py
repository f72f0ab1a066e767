"""Rows of pages of text: a folder of pictures with their texts, or the benchmark Fox."""
