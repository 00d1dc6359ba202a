ALTER TABLE signing_key ADD COLUMN revoked_at BIGINT;

-- Revoking finds the live families of whatever is revoked.
CREATE INDEX token_family_user ON token_family (workspace, user_id) WHERE revoked_at IS NULL;
CREATE INDEX token_family_client ON token_family (client) WHERE revoked_at IS NULL;
CREATE INDEX token_family_consent ON token_family (consent) WHERE revoked_at IS NULL;
