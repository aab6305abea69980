"""The one exception for everything a user can mend."""


class UserError(Exception):
    """Bad input, told in one line: the rule, the value received, the choices and the fix.

    Scripts print the message without a traceback and leave with exit code 2.
    """
