"""The version, apart from the package's entry so that every layer may name it."""

__version__ = "1.0.0.dev0"
