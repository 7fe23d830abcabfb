"""From files to pixels: the data set, decoding, resizing, crops, tiles and what a teacher is shown."""
