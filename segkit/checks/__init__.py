"""What `segkit check` looks at: recipes, knobs, dataset folders, run folders."""
