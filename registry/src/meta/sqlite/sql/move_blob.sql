-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE blobs
SET size = ?2, gen = ?3, form = ?4, tail = ?5
WHERE id = ?1
