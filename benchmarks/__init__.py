"""Benchmarks of the production code paths against hand-written references: ``python -m benchmarks``."""
