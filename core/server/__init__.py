"""The Starlette server around the pages: visitors, middleware, forms and headers.

:class:`core.server.visitor.Visitors` identifies the person behind a request or websocket,
:class:`core.server.middleware.Guard` lets through what that person may reach, and the routes handle
sign-in, registration, password changes and account deletion.
"""
