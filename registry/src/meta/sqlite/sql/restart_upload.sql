UPDATE uploads
SET gen = ?3, first_lease = lease, multipart_id = NULL, part_size = NULL, parts = '[]', spec = NULL, off = 0, hash = x'', tails = '[]'
WHERE id = ?1
  AND lock_token = ?2
