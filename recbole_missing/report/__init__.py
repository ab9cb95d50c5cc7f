"""Reports: tables, significance tests and figures from the lines of a store."""
