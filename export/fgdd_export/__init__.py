"""Export: turn published networks into bundles that run without the framework they came from."""
