"""The catalogue's models: made from their published sources."""
