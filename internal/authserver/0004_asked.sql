-- What a client says about the sign-in.
ALTER TABLE flow ADD COLUMN since BIGINT NOT NULL DEFAULT 0;     -- one from before does not answer it
ALTER TABLE flow ADD COLUMN login_hint TEXT NOT NULL DEFAULT ''; -- address for the page; empty: none
UPDATE flow SET since = created_at WHERE prompt LIKE '%login%';
