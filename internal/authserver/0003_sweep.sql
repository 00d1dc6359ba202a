CREATE INDEX flow_expires ON flow (expires_at);
CREATE INDEX flow_client ON flow (client);
CREATE INDEX authorization_code_expires ON authorization_code (expires_at);
CREATE INDEX authorization_code_unused ON authorization_code (expires_at) WHERE used_at IS NULL;
CREATE INDEX authorization_code_client ON authorization_code (client);
CREATE INDEX consent_client ON consent (client);
