"""``nexus-marketing``: everything an operator does, one command each."""

from nexus_marketing.cli.app import main

__all__ = ["main"]
