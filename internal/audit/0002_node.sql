CREATE TABLE audit_node (
	id      TEXT   PRIMARY KEY, -- of a process that carries calls
	oldest  BIGINT NOT NULL,    -- no call that it carries was pending before, µs
	seen_at BIGINT NOT NULL
);

INSERT INTO audit_node (id, oldest, seen_at) VALUES ('', 0, 0); -- whoever wrote before nodes had names
