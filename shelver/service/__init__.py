"""The service: shelver over HTTP. The only home of fastapi and sqlalchemy; it needs no torch."""
