from tests.adapters.conftest import postgres_server

__all__ = ["postgres_server"]
