"""What sweeps have done and do, as their files tell, for commands and for Python; changes none of them."""
