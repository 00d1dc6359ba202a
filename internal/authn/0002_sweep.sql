CREATE INDEX sign_in_link_expires ON sign_in_link (expires_at);
CREATE INDEX browser_session_expires ON browser_session (expires_at);
