-- A signing key is next, signs from active_at, is retired at retired_at, when its
-- private half goes, and goes when the last token that it signed has expired.
ALTER TABLE signing_key ADD COLUMN active_at BIGINT;
ALTER TABLE signing_key ADD COLUMN retired_at BIGINT;
UPDATE signing_key SET active_at = created_at WHERE generation = (SELECT min(generation) FROM signing_key WHERE revoked_at IS NULL);

-- Counts the changes of signing keys: a node that sees another number reads them again.
ALTER TABLE revocation_head ADD COLUMN keys BIGINT NOT NULL DEFAULT 0;
