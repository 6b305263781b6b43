-- The roles of an installation. Run it once, before the first singil migrate up, as a superuser or as the owner of
-- the database with CREATEROLE:
--
--   psql -v ON_ERROR_STOP=1 -d singil -f deploy/sql/roles.sql
--
-- Nobody can log in with them yet. Either a role gets a password (ALTER ROLE singil_worker LOGIN PASSWORD '...'), or
-- a login is made a member (CREATE ROLE maria LOGIN PASSWORD '...' IN ROLE singil_operator). singil_owner must be
-- logged in with directly: what it makes belongs to it. What the other three may do is in
-- migrations/grants/grants.sql; singil migrate grants gives it to them.
--
-- It may be run again, and changes nothing then.

DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['singil_owner', 'singil_worker', 'singil_operator', 'singil_readonly'] LOOP
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', name);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL; -- it is there, or somebody else made it meanwhile
    END;
  END LOOP;
  -- An operator may do what the daemon may, and more.
  IF NOT pg_has_role('singil_operator', 'singil_worker', 'MEMBER') THEN
    GRANT singil_worker TO singil_operator;
  END IF;

  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT, CREATE ON DATABASE %I TO singil_owner', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO singil_worker, singil_operator, singil_readonly', current_database());
END $$;

-- The default before PostgreSQL 15. The owner puts an extension here.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO singil_owner;
