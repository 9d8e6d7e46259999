#!/bin/sh
# Runs the provisioning scripts of a machine that boots from somebody's cloud image, in the order of their names, and stops
# at the first that fails. cloud-init calls it at each boot, when all else is set up.
#
# How far it is stands in $STATE: "running NAME", "failed NAME CODE" or "done". What the scripts say is in $LOG.
set -eu

SCRIPTS=${ZFSDEV_PROVISION_SCRIPTS:-/etc/zfsdev/provision}
STATE=${ZFSDEV_PROVISION_STATE:-/run/zfsdev/provision}
LOG=${ZFSDEV_PROVISION_LOG:-/var/log/zfsdev-provision.log}

# Whoever reads the state must never see half a line of it.
tell() {
  printf '%s\n' "$*" >"$STATE.new"
  mv "$STATE.new" "$STATE"
}

mkdir -p "$(dirname "$STATE")"
: >"$LOG"
for script in "$SCRIPTS"/*; do
  [ -f "$script" ] || continue
  name=$(basename "$script")
  tell "running $name"
  # A pipe has the exit code of its end, which is not the one that matters.
  { code=0; "$script" 2>&1 || code=$?; echo "$code" >"$STATE.code"; } | tee -a "$LOG"
  code=$(cat "$STATE.code")
  if [ "$code" -ne 0 ]; then
    tell "failed $name $code"
    exit 1
  fi
done
tell "done"
