"""Schema migrations; installed as ``nexus_marketing.migrations``."""
