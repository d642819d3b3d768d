"""Training of the embedded models: corpus, tokenizer, optimizer, evaluation, model cards.

Only its own tests import it; Paddock works without this folder.
"""
