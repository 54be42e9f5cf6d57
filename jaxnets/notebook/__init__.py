"""A network as Keras and scikit-learn know it."""
