-- What a client is compared with when somebody asks what changed: what it said when it
-- was approved, or else before it last changed; empty if it never did.
ALTER TABLE client ADD COLUMN earlier TEXT NOT NULL DEFAULT '';
ALTER TABLE client ADD COLUMN changed_at BIGINT NOT NULL DEFAULT 0;
UPDATE client SET earlier = metadata WHERE approved_at IS NOT NULL;
