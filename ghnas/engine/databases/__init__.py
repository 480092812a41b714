"""Searches whose record is in a database, and several processes that fill one study together."""
