-- Answers of callers that arrived at another node than the one that asked. A row
-- lives for as long as it takes that node to look.
CREATE TABLE mcp_answer (
	question   TEXT PRIMARY KEY, -- random part of the question's id
	answer     BYTEA NOT NULL,   -- the message, sealed
	expires_at BIGINT NOT NULL
);
