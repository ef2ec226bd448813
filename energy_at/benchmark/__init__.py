"""Speed: our training, evaluation and sampling beside the loops that people copy."""
