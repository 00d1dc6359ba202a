CREATE TABLE first (id TEXT PRIMARY KEY);
CREATE INDEX first_id ON first (id);
