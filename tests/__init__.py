"""Tests, the chaos suite and what they share."""
