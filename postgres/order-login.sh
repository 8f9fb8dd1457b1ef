#!/bin/sh
# Runs once, when the database is made: the role that order-service logs in as. It owns nothing; what its group may do is
# granted by `order-service migrate`.
set -eu
psql --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\set password `cat /run/secrets/order-login-password`
CREATE ROLE order_service NOLOGIN;
CREATE ROLE order_login LOGIN PASSWORD :'password' IN ROLE order_service;
SQL
