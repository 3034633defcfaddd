"""The listings of REST and GraphQL: what of each table may be seen, sorted by and filtered on."""
