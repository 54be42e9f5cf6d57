"""`jaxnets serve`: trained runs behind HTTP, two of them for an A/B test."""


def is_url(log: str) -> bool:
    """Whether a log is named by a URL, as PostgreSQL's are; else it is a file."""
    return "://" in log
