DROP INDEX connections_by_user;
