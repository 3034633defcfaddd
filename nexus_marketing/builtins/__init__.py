"""Our own plugins, registered like a stranger's."""
