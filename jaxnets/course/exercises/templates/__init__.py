"""The files that `jaxnets exercise new` writes for a student to fill in."""
