"""How fast the product is, against a plain reference and the machine's own limit. No Ray, no MLflow."""
