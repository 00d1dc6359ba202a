-- What the person allowed, where an account elsewhere has to be connected before
-- there is a code.
ALTER TABLE flow ADD COLUMN member TEXT NOT NULL DEFAULT '';  -- who allowed it; empty: nobody has yet
ALTER TABLE flow ADD COLUMN consent TEXT NOT NULL DEFAULT '';
ALTER TABLE flow ADD COLUMN granted TEXT NOT NULL DEFAULT ''; -- scopes
