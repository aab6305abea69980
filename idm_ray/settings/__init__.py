"""What a user may set: sections, presets, and how file, command line and search become one checked config."""
