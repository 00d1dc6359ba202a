CREATE INDEX refresh_token_expires ON refresh_token (expires_at);
CREATE INDEX refresh_token_family ON refresh_token (family);
CREATE INDEX token_family_used ON token_family (used_at);
CREATE INDEX revocation_expires ON revocation (expires_at);
