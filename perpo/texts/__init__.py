"""Texts of pages: their normal form, the tables in them, and unit tests of them. No torch."""
