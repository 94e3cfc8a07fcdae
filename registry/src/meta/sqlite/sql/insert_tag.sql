INSERT INTO tags (repo_id, name, manifest_id, epoch, seq, gen, pushed_at)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, now
FROM clock
WHERE true
ON CONFLICT DO NOTHING  -- compared below
