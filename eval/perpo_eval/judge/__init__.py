"""The judge: what it is asked, the calls, what it answered, and how far it can be trusted."""
