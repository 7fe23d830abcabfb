"""How cost grows with the number of images, and what a data set that is not here would take."""
