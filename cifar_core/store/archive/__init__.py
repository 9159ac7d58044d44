"""Runs on the move: packs of runs and backups of a whole store."""
