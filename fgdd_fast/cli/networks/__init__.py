"""Commands about models: pull, fit, export, convert, build engines."""
