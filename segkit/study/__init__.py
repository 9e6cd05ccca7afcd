"""A recipe becomes trials; trials become tables, figures and a verdict."""
