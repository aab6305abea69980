"""All condensed sets of a folder of sweeps: found by what they hold, with names and every figure measured on them."""
