"""Campaigns: written down, launched, repeated, and what they hear of."""
