"""SMPP 3.4 as a client: binds that are kept, what goes over them, and what the other side says."""
