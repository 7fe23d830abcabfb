"""Teachers: any image classifier, or a backbone with a fitted head, as a bundle."""
