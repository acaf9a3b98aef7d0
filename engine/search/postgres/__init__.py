"""An index on a PostgreSQL server, for libraries that a file is too small for. Needs the extra `postgres`."""
