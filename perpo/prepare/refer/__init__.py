"""RefCOCO, RefCOCO+ and RefCOCOg from their published files."""
