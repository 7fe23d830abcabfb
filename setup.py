"""What is installed: every room of the four packages; setup.cfg says the rest."""

from setuptools import find_packages, setup

FOLDERS = (".", "engines", "export", "benchmarks")

setup(packages=[package for folder in FOLDERS for package in find_packages(folder, include=["fgdd_*"])])
