"""What a study found, as HTML, Markdown and figures."""
