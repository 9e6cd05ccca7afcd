"""What `segkit check` looks at: recipes, dataset folders, run folders."""
