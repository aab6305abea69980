"""What is not finite any more."""


class Diverged(Exception):
    """The loss, S or a net is not finite any more; says which and when, and what would help."""
