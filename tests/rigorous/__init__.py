"""Proved verdicts."""
