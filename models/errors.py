"""The root of the one exception tree (drawn in full at the top of ``stream/errors.py``).

It lives here because ``models`` is the lowest package: everything may import it.
"""


class LookoutError(Exception):
    """Something a user can act on: says what was given, what was expected, what to do.

    The command line prints it as one line without a traceback.
    """

    exit_code = 1


class DataError(LookoutError):
    """Annotations or pictures that cannot be trained or evaluated on."""


class RecipeError(LookoutError):
    """A training recipe with an unknown key or a wrong value."""

    exit_code = 2
