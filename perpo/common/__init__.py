"""What every part stands on: files, journals, locks, arguments, programs. No torch."""
