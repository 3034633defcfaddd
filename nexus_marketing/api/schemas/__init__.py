"""What bodies may hold: one Cerberus schema per change."""
