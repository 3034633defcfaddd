"""Plugins that are not trusted, each in a process of its own that has nothing but two pipes (SR-004, DESIGN.md §6)."""
