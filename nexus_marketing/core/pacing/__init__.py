"""When and how fast somebody may be written to: caps, quiet hours and whose clock counts, rates, and when a send stops itself."""
