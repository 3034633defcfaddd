"""Where computed values are kept for a while: ``memory`` in one process, ``redis`` for all of them (SCL-006)."""
