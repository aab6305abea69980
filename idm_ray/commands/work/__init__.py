"""What the commands do once their words are checked; here heavy modules are imported."""
