"""Posts on social networks: one channel for each network, over what they have in common."""
