"""Room for each ledger row's outcome on its page."""

from alembic import op

from nexus_marketing.migrations.support import is_postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Pages written from now on; those of before are full of rows that are settled.

    Ledger rows are updated once, all neighbours of a page in one transaction: only room for a second version
    of each of them keeps their index entries untouched (HOT). Measured: 12 us a row at 80, 3.5 us at 45.
    """
    if is_postgresql():
        op.execute("ALTER TABLE marketing_deliveries SET (fillfactor = 45)")


def downgrade() -> None:
    """As before."""
    if is_postgresql():
        op.execute("ALTER TABLE marketing_deliveries SET (fillfactor = 80)")
