"""A predictor as a web service."""
