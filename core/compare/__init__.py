"""Compare the answers of several models to one instruction or a list of instructions.

``setup`` and ``match`` run one comparison, ``series`` runs a list; ``figures``, ``divergence`` and
``timed_answers`` compute how the answers differ; ``export`` writes files. Nothing here depends on
the user interface.
"""
