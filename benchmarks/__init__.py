"""What is measured from a checkout: the studies and the accuracy of students. Not installed."""
