"""Channel accounts of tenants: their settings, and trying them."""
