"""The HTTP service. `python -m serving.http` runs it; `serving.http.app.create_app` makes it as an ASGI application."""
