"""Files may be packed, and those of a project with the same bytes share them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Of files that were stored twice before, each keeps its own bytes; later ones share the first's."""
    with op.batch_alter_table("files") as batch:
        batch.add_column(sa.Column("packing", sa.String(length=16), nullable=False, server_default="none"))
    op.create_table(
        "file_contents",
        sa.Column("blob_key", sa.String(length=255), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_file_contents_project_id_projects")),
        sa.PrimaryKeyConstraint("blob_key", name=op.f("pk_file_contents")),
        sa.UniqueConstraint("project_id", "sha256", name=op.f("uq_file_contents_project_id")),
    )
    op.execute(
        "INSERT INTO file_contents (blob_key, project_id, sha256, files) "
        "SELECT blob_key, project_id, sha256, 1 FROM files WHERE seq IN "
        "(SELECT min(seq) FROM files WHERE purpose = 'fine-tune' GROUP BY project_id, sha256)"
    )


def downgrade() -> None:
    """Undo. Refused while files share bytes, because a deletion would take them from the others."""
    shared_contents = op.get_bind().execute(sa.text("SELECT count(*) FROM file_contents WHERE files > 1")).scalar()
    if shared_contents:
        raise RuntimeError(f"{shared_contents} stored contents belong to several files: delete the others first.")
    op.drop_table("file_contents")
    with op.batch_alter_table("files") as batch:
        batch.drop_column("packing")
