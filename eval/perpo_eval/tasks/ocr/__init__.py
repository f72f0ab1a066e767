"""Page reading tasks for lmms-eval: Fox, OCRBench v2, olmOCR-Bench, OmniDocBench, the tiny world's pages."""
