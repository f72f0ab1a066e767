"""From what people have to documents: which tasks, where their rows lie, what they hold."""
