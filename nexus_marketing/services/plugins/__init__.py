"""What a tenant has of plugins, and what is asked of them outside of delivery."""
