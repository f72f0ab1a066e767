"""From run records to what people decide by. Nothing is handed on. No torch."""
