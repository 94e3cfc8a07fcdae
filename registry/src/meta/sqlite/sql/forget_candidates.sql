-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

DELETE FROM promotion_candidates
WHERE CASE request
        WHEN '' THEN policy NOT IN (SELECT value FROM json_each(?1))
        ELSE due < (SELECT now FROM clock)
      END
