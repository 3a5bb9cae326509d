"""Several models, one answer: choosing one for a video, or averaging them."""
