"""Ray clusters: benchmarks on all nodes, and models served by them.

Ray is imported only when a cluster is used; see :mod:`core.cluster.connection`.
"""
