"""Segments, and what keeps them true (BEHAVIOUR.md 5.3)."""
