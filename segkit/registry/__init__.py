"""Registries: named components whose parameters a recipe may set; one mechanism for all slots."""
