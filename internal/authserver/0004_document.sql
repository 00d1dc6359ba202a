-- Where what is known of a client comes from: registered, document.
ALTER TABLE client ADD COLUMN source TEXT NOT NULL DEFAULT 'registered';
-- Of a client whose id is the address of its document.
ALTER TABLE client ADD COLUMN fetched_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE client ADD COLUMN fresh_until BIGINT NOT NULL DEFAULT 0; -- until then it is not fetched again
ALTER TABLE client ADD COLUMN retry_at BIGINT NOT NULL DEFAULT 0;    -- a refresh does not try to fetch it before
CREATE INDEX client_document ON client (id) WHERE source = 'document';
