"""The demonstration: the product's main job on its own doors, with simulated recipients."""
