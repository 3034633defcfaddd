"""Faults injected into real processes; what happened is judged from the receiving server and plain SQL."""
