"""What workers do: Dramatiq actors are doorbells, rows in the database are the work."""
