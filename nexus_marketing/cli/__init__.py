"""``nexus-marketing``: everything an operator does without a browser."""

from nexus_marketing.cli.app import main

__all__ = ["main"]
