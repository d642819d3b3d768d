"""The Starlette server around the pages: visitors, middleware, forms and headers.

:class:`core.server.visitor.Visitors` identifies the user of a request or websocket,
:class:`core.server.middleware.AuthMiddleware` rejects what that user may not access, and the routes
handle sign-in, registration, password changes and account deletion.
"""
