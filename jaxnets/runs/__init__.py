"""A run in its folder: logged, saved, resumed, stopped, explained."""
