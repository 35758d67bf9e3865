"""A report of a fitted classifier on labelled samples: what it says, and the page."""
