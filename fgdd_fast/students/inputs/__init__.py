"""What students are trained on and judged by."""
