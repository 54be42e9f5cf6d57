"""Bringing a trained network to its users: export, server, A/B test."""
