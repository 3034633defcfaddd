"""Where topics meet: decisions as pure functions of a snapshot."""
