"""`jaxnets serve`: serves a trained run over HTTP, or two of them for an A/B test."""


def is_url(log: str) -> bool:
    """Whether a log is named by a URL, as in PostgreSQL; otherwise it is a file."""
    return "://" in log
