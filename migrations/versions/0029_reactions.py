"""What was seen of posts stands with their sends; leads are found by their handles on social networks."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import Json
from nexus_marketing.migrations.support import is_postgresql

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

NETWORKS = ("mastodon", "bluesky")


def upgrade() -> None:
    """A column; an index for each network, of leads alone that have a handle there. SQLite reads its leads, who are fewer."""
    op.add_column("marketing_sends", sa.Column("reactions", Json, nullable=True))
    if is_postgresql():
        for network in NETWORKS:
            op.execute(
                f"CREATE INDEX ix_marketing_leads_{network}_handle ON marketing_leads"
                f" (tenant_id, lower(ltrim(metadata ->> '{network}', '@')))"
                f" WHERE (metadata ->> '{network}') IS NOT NULL"
            )


def downgrade() -> None:
    """Without them: what was seen is read again while the posts are young."""
    if is_postgresql():
        for network in NETWORKS:
            op.execute(f"DROP INDEX ix_marketing_leads_{network}_handle")
    op.drop_column("marketing_sends", "reactions")
