"""Recipes: what a TOML file may say, how files and flags are merged, and what comes out."""
