-- DPoP proofs that were used, until they are too old to be used again, and the keys
-- that tokens are bound to.
CREATE TABLE dpop_proof (
	mark       TEXT PRIMARY KEY, -- hash of the key's thumbprint, the address and the proof's id
	expires_at BIGINT NOT NULL
);
CREATE INDEX dpop_proof_expires ON dpop_proof (expires_at);

ALTER TABLE access_token ADD COLUMN jkt TEXT NOT NULL DEFAULT '';
ALTER TABLE token_family ADD COLUMN jkt TEXT NOT NULL DEFAULT ''; -- of a public client; its refresh tokens need a proof
