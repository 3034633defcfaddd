"""Named scores: their rules, and what brings them up to date (BEHAVIOUR.md 5.4)."""
