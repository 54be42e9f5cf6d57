"""The log of an A/B test: the server's database, or a CSV file from elsewhere."""

import itertools
from pathlib import Path

from jaxnets.deploy.abtest.log import Answer, Users, read_csv
from jaxnets.deploy.server import feedback
from jaxnets.errors import UserError, first_line

SQLITE = b"SQLite format 3\0"  # The first bytes of every such file.
MAX_ANSWERS = 5_000_000


def read_users(path: str) -> Users:
    """Reads the answers of a log, by user: the server's SQLite, or CSV as in `read_csv`.

    Raises:
      UserError: There is no such file, or it is damaged, of another form, or empty.
    """
    try:
        file = Path(path).expanduser()
        if file.exists() and not file.is_file():  # A device or a pipe may never end.
            raise UserError(f"{path}: expected a log or a run folder, found neither")
        with file.open("rb") as stream:
            is_database = stream.read(len(SQLITE)) == SQLITE
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: ~ of no user.
        raise UserError(f"{path}: expected a log or a run folder: {first_line(error)}") from None
    if is_database:
        answers = (
            Answer(row.arm, row.correct, row.user, f"{row.model} version {row.version}")
            for row in feedback.rows(file)
        )
    else:
        answers = read_csv(file)
    users = Users.of(itertools.islice(answers, MAX_ANSWERS + 1))
    if not users.judged.any():
        raise UserError(f"{path}: expected answers of users, found none")
    if users.shown.sum() > MAX_ANSWERS:
        raise UserError(f"{path}: expected at most {MAX_ANSWERS:,} answers, found more")
    return users
