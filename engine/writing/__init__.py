"""Captions written into files of other programs: XMP sidecars, HTML and Markdown. Knows no model and no command."""
