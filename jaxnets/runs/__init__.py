"""A run in its folder: logged, saved, resumed, stopped, explained."""

from jaxnets.base.suggestions import is_no_function

is_no_function(__name__)
