"""DVIS++: segmenter, referring tracker, temporal refiner, and the class map of a whole video."""
