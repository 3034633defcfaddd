"""Send rates by sender and by the domain of the address."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import Text

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

TABLE = "marketing_send_grants"


def upgrade() -> None:
    """Two columns: what was granted before counts for limits without a sender and without domains."""
    op.add_column(TABLE, sa.Column("sender", Text, nullable=True))
    op.add_column(TABLE, sa.Column("domain", Text, nullable=True))


def downgrade() -> None:
    """Without them every grant counts for its channel alone."""
    op.drop_column(TABLE, "domain")
    op.drop_column(TABLE, "sender")
