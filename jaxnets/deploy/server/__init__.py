"""`jaxnets serve`: trained runs behind HTTP, two of them for an A/B test."""
