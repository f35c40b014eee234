"""One WSGI and one ASGI application with the routes of the `http` service, for the servers that people deploy.

Neither uses a framework, so a server's figures are the server's.
"""
