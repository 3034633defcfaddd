"""Storages on other servers than the database; each is imported by its own module's name."""
