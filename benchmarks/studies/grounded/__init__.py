"""Studies of Grounded SAM 2: what smaller inputs cost (`smaller`), and Meta's own SAM 2 (`meta_sam2`)."""
