-- A pending user may be given up only when nobody has tried to finish it since: a retry that comes at that very moment would
-- otherwise leave a credential without a user, and its email could never be used again.

ALTER TABLE users ADD COLUMN attempted_at timestamptz NOT NULL DEFAULT clock_timestamp();

-- the sweeper looks for users that nobody has tried to finish for a while
DROP INDEX users_pending;
CREATE INDEX users_pending ON users (attempted_at) WHERE status = 'pending';
