"""Any task of lmms-eval, by name or from a task file of one's own: found, loaded, scored as it says itself."""
