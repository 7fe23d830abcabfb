"""Commands that make distilled data sets, and look at them."""
