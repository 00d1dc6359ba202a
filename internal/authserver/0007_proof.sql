-- The key to which a client binds its code (dpop_jkt); empty if it does not.
ALTER TABLE flow ADD COLUMN jkt TEXT NOT NULL DEFAULT '';
ALTER TABLE authorization_code ADD COLUMN jkt TEXT NOT NULL DEFAULT '';
