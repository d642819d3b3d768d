"""OpenAI-compatible API: request parsing, routes, streaming and errors.

It depends on Starlette only, not on pages, accounts or where a model runs.
:class:`core.api.app.Api` serves the routes below ``/v1``, :class:`core.api.service.Authenticate`
identifies the caller, and :class:`core.api.service.ModelService` generates the answers: the
dashboard's engine, or a replica in a cluster.
"""
