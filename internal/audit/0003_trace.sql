CREATE INDEX audit_event_ref ON audit_event (workspace, ref) WHERE action <> 'tool.call';
