"""Benchmarks: measure the product, and show how it was measured."""
