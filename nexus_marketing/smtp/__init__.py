"""The SMTP sender: protocol client, pipelining, pool, byte skeletons. Knows no tenant, ledger or session."""
