"""The tables of the first release.

Nothing to do: every store was made with all of them, and a new one is made from `schema` at once. How they
looked then is kept in `tests/store/first_schema`, from where a test migrates to the newest revision.
"""

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
