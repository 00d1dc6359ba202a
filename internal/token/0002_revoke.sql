ALTER TABLE signing_key ADD COLUMN revoked_at BIGINT;

-- Revoking finds the families of whatever is revoked, and a person's page those
-- that ended as well.
CREATE INDEX token_family_person ON token_family (workspace, user_id);
CREATE INDEX token_family_client ON token_family (client);
CREATE INDEX token_family_consent ON token_family (workspace, consent);
