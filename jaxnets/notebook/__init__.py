"""Networks with the interfaces of Keras and scikit-learn."""
