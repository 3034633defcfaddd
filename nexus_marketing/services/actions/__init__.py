"""Named actions: asked for, taken, taken back, and called for by escalations."""
