-- For deploy/compose.yaml alone: passwords that everybody knows.
ALTER ROLE singil_owner LOGIN PASSWORD 'owner';
ALTER ROLE singil_worker LOGIN PASSWORD 'worker';
ALTER ROLE singil_operator LOGIN PASSWORD 'operator';
ALTER ROLE singil_readonly LOGIN PASSWORD 'readonly';
