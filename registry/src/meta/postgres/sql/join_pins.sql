-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Before a place in the order: a mirror that copies a tag waits for us, or we for it.
SELECT 1 FROM repositories WHERE id = $1 FOR KEY SHARE
