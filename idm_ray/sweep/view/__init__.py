"""What people look at: the live table, the summary, the report."""
