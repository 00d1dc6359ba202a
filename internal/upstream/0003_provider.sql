ALTER TABLE upstream ADD COLUMN provider TEXT NOT NULL DEFAULT ''; -- whose credential each person uses there
