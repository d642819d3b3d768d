"""OpenAI's protocol, spoken to programs: what they may ask, how they are answered, and refused.

Starlette only; nothing here knows of pages, accounts or where a model runs.
:class:`core.api.app.Api` is the routes below ``/v1``; who asks is told by an
:class:`core.api.service.Admission`, and who answers is an :class:`core.api.service.Answering`: the
dashboard's engine, or a replica elsewhere.
"""
