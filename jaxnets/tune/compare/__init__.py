"""Capacity and no free lunch: the lecture's models side by side on several data sets."""
