"""Data sets prepared by TensorFlow Datasets, read without TensorFlow."""
