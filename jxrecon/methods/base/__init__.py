"""What a method is, and the skeletons that several methods share."""
