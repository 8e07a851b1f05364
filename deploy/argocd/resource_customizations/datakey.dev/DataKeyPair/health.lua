-- Progressing until the operator has seen the present spec: Degraded when a person must act (Stalled), Healthy when the
-- Secret holds the data key (Ready). The message is that of Ready, to which Stalled refers. A condition about an earlier
-- spec says nothing about this one.
local health = { status = "Progressing", message = "Waiting for the operator to see the present spec" }
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
local why, stalled
for _, condition in ipairs(obj.status.conditions or {}) do
  if condition.observedGeneration == obj.metadata.generation then
    if condition.type == "Stalled" and condition.status == "True" then
      stalled = condition.message
    end
    if condition.type == "Ready" then
      health.message = condition.message
      if condition.status == "True" then
        health.status = "Healthy"
      else
        why = condition.message
      end
    end
  end
end
if stalled ~= nil then
  return { status = "Degraded", message = why or stalled }
end
return health
