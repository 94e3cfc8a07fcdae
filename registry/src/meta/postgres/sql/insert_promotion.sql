-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- One that took effect: its time is that of its record, so that the row can be made again from the bucket.
INSERT INTO promotions (digest, source_repo, source_tag, target_repo, target_tag, policy, outcome, actor, at, evidence,
                        epoch, seq, gen)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, timestamptz 'epoch' + $9 * interval '1 millisecond', $10, $11, $12, $13)
ON CONFLICT (gen) WHERE gen IS NOT NULL DO NOTHING  -- whoever compared the bucket with the database has adopted it
