"""Two small instruct models of Paddock's own: corpus, training, evaluation, weights."""
