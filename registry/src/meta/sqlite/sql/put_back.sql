-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO gc_queue (due, kind, ref)
SELECT now + ?3, ?1, ?2
FROM clock
