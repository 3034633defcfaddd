"""Alembic's entry: runs on a connection that ``nexus_marketing.db.upgrade`` hands over."""

from alembic import context

from nexus_marketing.db.base import Base
from nexus_marketing.db.models import Lead  # noqa: F401 - fills the metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=False,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
