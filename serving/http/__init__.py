"""The HTTP service: `python -m serving.http` runs it, `serving.http.app.create_app` is it as an ASGI application."""
