"""Journeys on the database: who comes in, how runs go on, and what people do with both (BEHAVIOUR.md 5.1)."""
