"""The database: models, tenant-scoped sessions, queries. Nothing outside this folder writes raw SQL."""
