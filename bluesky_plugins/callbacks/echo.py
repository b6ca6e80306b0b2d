"""What travels on the topics, in lines for a person."""

__all__ = ["echo_lines"]


def echo_lines() -> None:
    """See below."""
