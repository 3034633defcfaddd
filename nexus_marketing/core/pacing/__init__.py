"""When somebody may be written to: frequency caps, quiet hours and whose clock counts (BEHAVIOUR.md 5.1)."""
