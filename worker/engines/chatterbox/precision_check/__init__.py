"""Compares precisions with upstream's own arithmetic, on an operator's weights and texts: `chorus check-precision`."""
