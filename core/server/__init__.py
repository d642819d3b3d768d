"""What stands between the network and the pages: who a visitor is, the doors, and the headers.

Starlette only. :class:`core.server.visitor.Visitors` tells the person of any request or websocket;
:class:`core.server.middleware.Guard` lets through what that person may reach; the routes are the forms by
which people come and go.
"""
