"""Pages of PDF files: pictures, the text that is seen on them, and what was left out and why."""
