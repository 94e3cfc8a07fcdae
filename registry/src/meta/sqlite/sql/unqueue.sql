-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE outbox
SET steps = (SELECT json_group_array(value) FROM json_each(outbox.steps) 
             WHERE value <> ?1 AND substr(value, 1, length(?2)) <> ?2)
WHERE id IN (SELECT outbox_id FROM outbox_steps WHERE step = ?1)
