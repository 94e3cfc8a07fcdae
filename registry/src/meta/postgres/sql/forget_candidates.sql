-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

DELETE FROM promotion_candidates
WHERE CASE request
        WHEN '' THEN NOT policy = ANY ($1)
        ELSE due < clock_timestamp()
      END
