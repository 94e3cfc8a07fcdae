-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Pins hold this row before they get a place in the order: those that have begun are waited for, and seen by the next
-- statement; the others are placed after us.
SELECT 1 FROM repositories WHERE id = $1 FOR UPDATE
