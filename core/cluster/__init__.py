"""More than one machine, by Ray: benchmarks on all nodes of a cluster, and models served by them.

Nothing of Ray is imported before somebody asks for a cluster; see :mod:`core.cluster.connection`.
"""
