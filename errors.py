"""The mark of errors that are meant for users."""

__all__ = ["UserError"]


class UserError(Exception):
    """Something that the user can mend: a message of one line with the offending value and the way out.

    Scripts print it and end with code 2 (`engine/cli.py`); whatever else is raised keeps its traceback.
    """
