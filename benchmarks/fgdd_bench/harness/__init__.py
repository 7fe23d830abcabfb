"""What is compared, on which images, in which turns, and whether the answers agree."""
