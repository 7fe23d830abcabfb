"""What studies run in processes of their own, on some cores or in the environment of another version."""
