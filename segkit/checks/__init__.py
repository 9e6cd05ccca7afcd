"""The checks of `segkit check`: recipes, dataset folders, run folders."""
