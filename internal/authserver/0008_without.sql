-- Providers at which an account is missing, and without which the person goes on.
ALTER TABLE flow ADD COLUMN without TEXT NOT NULL DEFAULT '';
