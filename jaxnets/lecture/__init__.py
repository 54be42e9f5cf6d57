"""The slides' own procedure and lines; search over settings and seeds; comparison of models."""
