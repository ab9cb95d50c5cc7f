"""Other projects' layouts, in and out."""
