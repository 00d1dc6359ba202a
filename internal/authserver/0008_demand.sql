-- What a client demands of itself: no token without a DPoP proof (RFC 9449 §5.2), no
-- authorization that was not pushed (RFC 9126 §6).
ALTER TABLE client ADD COLUMN dpop_bound BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE client ADD COLUMN pushed_only BOOLEAN NOT NULL DEFAULT FALSE;
