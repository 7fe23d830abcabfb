"""This project along each path that is compared."""
