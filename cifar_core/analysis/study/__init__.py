"""The published study: its figures, and our own runs of its settings."""
