"""The base of every part: files, journals, locks, arguments, programs. No torch."""
