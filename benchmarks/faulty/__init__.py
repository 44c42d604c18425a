"""Ranks that go wrong at a chosen place, and what a launcher makes of it."""
