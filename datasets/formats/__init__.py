"""Readers of annotation formats, one a file; each gives `Records` and knows nothing of the others."""
