"""The report of a study as HTML, Markdown and figures."""
