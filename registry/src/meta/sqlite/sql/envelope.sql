SELECT registry, schema, epoch,
  fence IS ?1 AS ours,
  reconciled = epoch AS walked
FROM meta
