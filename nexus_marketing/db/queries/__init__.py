"""Reads and bulk writes that are worth writing by hand: commented, bounded, tenant first."""
