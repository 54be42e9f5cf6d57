"""Figures as SVG: one source for a notebook, a page, an SVG and a PNG file."""
