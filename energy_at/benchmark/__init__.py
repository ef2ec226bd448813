"""Speed of training, evaluation and sampling, compared with reference loops."""
