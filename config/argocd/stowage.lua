-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Health of every kind of stowage.dev for Argo CD. In the ConfigMap argocd-cm:
--   resource.customizations: |
--     "stowage.dev/*":
--       health.lua: |
--         <this file>
local health = { status = "Progressing", message = "waiting for the operator" }

if obj.metadata.deletionTimestamp ~= nil then
  health.message = "being deleted"
  return health
end

if obj.spec ~= nil and obj.spec.suspend == true then
  return { status = "Suspended", message = "suspended" }
end

local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end

local ready = nil
for _, condition in ipairs(status.conditions) do
  if condition.type == "Stalled" and condition.status == "True" then
    return { status = "Degraded", message = condition.message }
  end
  if condition.type == "Ready" then
    ready = condition
  end
end

if ready ~= nil then
  health.message = ready.message
  if ready.status == "True" then
    health.status = "Healthy"
  end
end
return health
