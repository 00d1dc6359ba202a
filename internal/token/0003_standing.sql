-- A person's page shows the families that ended as well.
DROP INDEX token_family_user;
CREATE INDEX token_family_person ON token_family (workspace, user_id);
CREATE INDEX token_family_of_consent ON token_family (workspace, consent);
DROP INDEX token_family_consent;
