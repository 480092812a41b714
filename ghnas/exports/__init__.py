"""Trained networks as programs that need nothing of ghnas."""
