-- What is remembered, and as what: of the client as it was when it was shown.
ALTER TABLE consent ADD COLUMN redirect_key TEXT NOT NULL DEFAULT '';     -- the address, a loopback one without its port
ALTER TABLE consent ADD COLUMN client_name TEXT NOT NULL DEFAULT '';
ALTER TABLE consent ADD COLUMN client_redirects TEXT NOT NULL DEFAULT ''; -- one a line
ALTER TABLE consent ADD COLUMN ends_at BIGINT;                            -- none: until it is removed
ALTER TABLE consent ADD COLUMN ended_at BIGINT;
ALTER TABLE consent ADD COLUMN reason TEXT NOT NULL DEFAULT '';           -- why it ended
-- Those from before are nothing that a new request could match.
UPDATE consent SET redirect_key = id;
CREATE UNIQUE INDEX consent_live ON consent (workspace, user_id, client, redirect_key, resource) WHERE ended_at IS NULL;
CREATE INDEX consent_person ON consent (workspace, user_id);

CREATE INDEX authorization_code_consent ON authorization_code (consent);

ALTER TABLE flow ADD COLUMN prompt TEXT NOT NULL DEFAULT ''; -- what the person has to do in any case
