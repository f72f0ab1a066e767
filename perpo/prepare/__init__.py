"""Parquet rows from what people have: refer's RefCOCO, POPE's lists, Fox's pages, folders, JSON lines, the hub."""
