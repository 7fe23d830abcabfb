"""This project along each path that is compared."""

__all__ = ["grounded", "mosaics", "small_networks", "whole"]
