"""The send engine: planning, claiming, gate, windows, outcomes, recovery (BEHAVIOUR.md 5.2)."""
