-- Without one, as in rows from before, nobody manages the registration.
ALTER TABLE client ADD COLUMN registration_hash BYTEA;
