-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Of one generation: which data a blob is made of (0: none), and whether it shows that blob to the repository.
SELECT coalesce((SELECT form FROM blobs WHERE gen = ?1), 0) AS form,
  (SELECT tail FROM blobs WHERE gen = ?1) AS tail,
  EXISTS (SELECT 1 FROM repo_blobs WHERE repo_id = ?2 AND digest = ?3 AND gen = ?1) AS linked
