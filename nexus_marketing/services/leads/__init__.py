"""Leads: written, found, merged, erased and shown."""
