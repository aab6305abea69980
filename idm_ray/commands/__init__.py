"""What a person can call: a module for each command."""
