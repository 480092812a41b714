"""Scores against trained accuracy."""
