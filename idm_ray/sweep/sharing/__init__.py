"""One real side for many trials: its records are computed once and handed to all that can use them."""
