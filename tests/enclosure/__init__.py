"""Rigorous enclosures."""
